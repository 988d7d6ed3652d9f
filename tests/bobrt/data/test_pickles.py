"""A pickle is read as data: plain containers, numbers, text and arrays come back, and nothing runs."""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import sys
from collections import Counter, OrderedDict
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bobrt.data.pickles import load
from bobrt.errors import UsageError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.arange(12, dtype=np.int64).reshape(3, 4).T,
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(20)[::3],
    np.array([1.5, -2.5], dtype=">f4"),
    np.array([[True], [False]]),
    np.array(["cat", "a dog"]),
    np.array([b"cat", b"dog"]),
    np.array([1 + 2j]),
    np.array(7, dtype=np.int16),
    np.zeros((0, 4), dtype=np.float32),
    np.zeros(0, dtype=np.uint8),
]
RAN: list[int] = []
PLAIN: list[Any] = [
    None,
    [True, 1, -(2**70), 1.5, 2j, "text", "ünï", b"", b"bytes \x00\xff", ()],
    {"a": [1, (2, 3)], b"b": {4, 5}, 6: frozenset({7}), (8, "x"): {}},
    OrderedDict([("z", 1), ("a", 2)]),
]


class Runs:
    """An object whose pickle calls something when it is read."""

    def __init__(self, what: Any, *args: Any) -> None:
        self.call = what, args

    def __reduce__(self) -> Any:
        return self.call


def same(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert np.array_equal(got, want)


def refusal(source: Path | bytes, encoding: str = "latin1") -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(source, encoding)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", PLAIN, ids=["none", "list", "dict", "ordered"])
def test_plain_data_comes_back_as_it_was(value: Any, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_arrays_come_back_as_they_were(array: np.ndarray, protocol: int) -> None:
    """Of every protocol, in a container or alone; they can be written to, as unpickled ones can."""
    same(load(pickle.dumps(array, protocol)), array)
    got = load(pickle.dumps({"data": [array, array]}, protocol))["data"]
    same(got[0], array)
    assert got[0] is got[1] or protocol < 2
    assert got[0].flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "scalar", [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("x")], ids=lambda s: type(s).__name__
)
def test_numbers_of_numpy_come_back_as_they_were(scalar: Any, protocol: int) -> None:
    got = load(pickle.dumps([scalar], protocol))[0]
    assert type(got) is type(scalar)
    assert got == scalar


def test_both_names_of_numpys_core_are_known() -> None:
    """A pickle of numpy 1 says numpy.core, one of numpy 2 numpy._core; either is read."""
    new = pickle.dumps(np.arange(5), 2)
    assert b"numpy._core.multiarray" in new
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for content in (old, new):
        same(load(content), np.arange(5))


def batch_of_python_2() -> bytes:
    """Return a batch as CIFAR's are: of Python 2, whose text is bytes, protocol 2.

    Written opcode by opcode: no Python 3 writes such text.
    """
    pixels = bytes(range(250, 256)) + b"\x00\x7f"

    def text(content: bytes) -> bytes:
        return b"U" + bytes([len(content)]) + content

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
        b"(K\x01(K\x02K\x04tcnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(pixels) + b"tb"
    )
    content = b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](K\x03K\x01e"
    return content + text(b"filenames") + b"](" + text(b"caf\xe9.png") + text(b"b.png") + b"e" + b"u."


def test_a_batch_of_python_2_is_read_with_its_names_as_text_or_as_bytes() -> None:
    content = batch_of_python_2()
    want = np.array([[250, 251, 252, 253], [254, 255, 0, 127]], np.uint8)
    got = load(content)
    assert sorted(got) == ["data", "filenames", "labels"]
    same(got["data"], want)
    assert got["labels"] == [3, 1]
    assert got["filenames"] == ["café.png", "b.png"]
    raw = load(content, encoding="bytes")
    assert sorted(raw) == [b"data", b"filenames", b"labels"]
    same(raw[b"data"], want)
    assert raw[b"filenames"][0] == b"caf\xe9.png"
    # The reference: what pickle itself makes of these bytes.
    assert np.array_equal(pickle.loads(content, encoding="bytes")[b"data"], want)  # noqa: S301 - ours


def test_a_big_endian_array_whose_kind_is_named_twice_keeps_its_order() -> None:
    """The second one refers to the first one's dtype, which learned its order after it was made."""
    for protocol in (2, 4):
        first, second = load(pickle.dumps([np.array([1], ">i4"), np.array([2], ">i4")], protocol))
        assert (first.tolist(), second.tolist(), second.dtype) == ([1], [2], np.dtype(">i4"))


def hostile(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Return pickles that would make `mark` if anything of them ran, and the name each is refused for."""
    touch = f"touch {mark}"
    python = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    objects = np.array([Runs(eval, python), 1], dtype=object)
    records = np.zeros(2, dtype=[("a", "i4"), ("b", "f4")])
    return {
        "os.system": (b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR.", "os.system"),
        "posix.system": (b"cposix\nsystem\n(S'" + touch.encode() + b"'\ntR.", "posix.system"),
        "eval": (pickle.dumps({"data": Runs(eval, python)}), "builtins.eval"),
        "exec of python 2": (b'c__builtin__\nexec\n(S"' + python.encode() + b'"\ntR.', "__builtin__.exec"),
        "inst": (b"(S'" + touch.encode() + b"'\nios\nsystem\n.", "os.system"),
        "getattr": (pickle.dumps(Runs(getattr, {}, "clear")), "builtins.getattr"),
        "subprocess": (
            pickle.dumps(Runs(__import__("subprocess").call, ["touch", str(mark)])),
            "subprocess.call",
        ),
        "numpy.load": (pickle.dumps(Runs(np.load, str(mark.with_suffix(".npy")))), "numpy.load"),
        "numpy.fromfile": (b"cnumpy\nfromfile\n(S'x'\ntR.", "numpy.fromfile"),
        "numpy runstring": (
            b"cnumpy.testing._private.utils\nrunstring\n(S'x'\n}tR.",
            "numpy.testing._private.utils",
        ),
        "numpy below ndarray": (
            b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.",
            "numpy.ndarray.__reduce__",
        ),
        "objects": (pickle.dumps(objects), "an array of object"),
        "objects alone": (pickle.dumps(np.array([None, {}], dtype=object)), "an array of object"),
        "records": (pickle.dumps(records), "an array of"),
        "a date": (pickle.dumps(date(2020, 1, 1)), "datetime.date"),
        "a fraction": (pickle.dumps(Fraction(1, 3)), "fractions.Fraction"),
        "a counter": (pickle.dumps(Counter("ab")), "collections.Counter"),
        "a path": (pickle.dumps(mark), "pathlib"),
        "a masked array": (pickle.dumps(np.ma.masked_array([1, 2], [0, 1])), "numpy.ma"),
        "a function as data": (b"cnumpy.core.multiarray\nscalar\n.", "a function"),
        "a class as data": (b"cnumpy\nndarray\n.", "a type"),
        "copyreg": (
            b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
            "copy_reg._reconstructor",
        ),
    }


NAMES = sorted(hostile(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_plain_data_is_refused_by_name_and_nothing_runs(tmp_path: Path, name: str) -> None:
    """The file and what it names are said; what it would have made is not there."""
    mark = tmp_path / "mark"
    with mark.with_suffix(".npy").open("wb") as file:
        np.save(file, np.array([Runs(eval, f"open({str(mark)!r}, 'w')")], dtype=object))
    content, what = hostile(mark)[name]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(content)
    for encoding in ("latin1", "bytes"):
        error = refusal(path, encoding)
        assert f"{path} is refused: it holds {what}" in error.message
    assert refusal(content).message.startswith("the pickle is refused")
    assert not mark.exists()


def test_a_hostile_one_would_run() -> None:
    """The negative control: what is refused here, pickle itself calls."""
    content = pickle.dumps(Runs(exec, f"import sys; sys.modules[{__name__!r}].RAN.append(1)"))
    refusal(content)
    assert not RAN
    pickle.loads(content)  # noqa: S301 - ours
    assert RAN == [1]


def test_what_is_admitted_cannot_be_changed_by_a_pickle() -> None:
    """A state put on a class or a function that is known would change it for every later file."""
    before = load(pickle.dumps(np.arange(3)))
    for named in (
        b"cnumpy\ndtype\n",
        b"cnumpy\nndarray\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"cbuiltins\nset\n",
    ):
        for state in (b"}S'settled'\nNs", b"N}S'settled'\nNs\x86", b"N}S'__defaults__'\n)s\x86"):
            refusal(b"\x80\x02" + named + state + b"b.")
    assert np.array_equal(load(pickle.dumps(np.arange(3))), before)
    assert load(pickle.dumps(np.float32(1), 2)) == 1


def test_bytes_in_another_encoding_than_python_writes_are_refused() -> None:
    """`_codecs.encode` knows more than text: it compresses, it asks plugins."""
    assert b"_codecs" in pickle.dumps(b"\xff", 2)
    error = refusal(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.")
    assert "encoding zip" in error.message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "data_batch_1"
    content = pickle.dumps({"data": np.zeros((4, 3072), np.uint8), "labels": [1, 2, 3, 4]}, 2)
    path.write_bytes(content[: int(share * len(content))])
    assert refusal(path).message.startswith(f"{path} is damaged, cut off or no pickle: ")


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone").message == f"cannot read {tmp_path / 'gone'}: No such file or directory"
    assert "Is a directory" in refusal(tmp_path).message


def test_what_lies_about_an_array_is_damaged() -> None:
    """Fewer bytes than its shape needs, or none at all."""
    content = pickle.dumps(np.arange(8, dtype=np.uint8).reshape(2, 4), 2)
    assert content.count(b"K\x02K\x04") == 1
    assert "damaged" in refusal(content.replace(b"K\x02K\x04", b"K\x09K\x04")).message
    assert (
        "damaged"
        in refusal(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntR.").message
    )


def test_containers_that_hold_themselves_or_each_other_a_thousandfold_are_harmless() -> None:
    """Neither an endless loop, nor a tree of 2^60 leaves, nor a stack that overflows."""
    loop: list[Any] = [1]
    loop.append(loop)
    assert "holds itself" in refusal(pickle.dumps(loop)).message
    wide: list[Any] = []
    for _ in range(60):
        wide = [wide, wide]
    got = load(pickle.dumps(wide))
    assert got[0] is got[1]
    assert "containers in each other" in refusal(b"(" * 5000 + b"l" * 5000 + b".").message


def test_a_byte_that_says_there_are_billions_of_values_costs_no_memory() -> None:
    """Room for what a memo of four bytes can count to is 64 GB."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from bobrt.data.pickles import load\n"
        "print(load(b'\\x80\\x02]r\\xff\\xff\\xff\\x7fK\\x01a.'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1]"


def test_flipped_bytes_end_in_plain_data_or_in_an_error_that_names_the_file(tmp_path: Path) -> None:
    """Nothing else comes out of damage, whatever opcodes it makes."""
    whole = np.frombuffer(
        pickle.dumps({"data": np.arange(9), "names": ["a", b"b"], "n": {1, 2}}, 2), np.uint8
    )
    rng = np.random.default_rng(0)
    path = tmp_path / "batch"
    refused = 0
    for _ in range(300):
        broken = whole.copy()
        broken[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        try:
            got = load(path)
        except UsageError as error:
            refused += str(path) in error.message
        else:
            assert isinstance(
                got, dict | list | tuple | set | np.ndarray | np.generic | str | bytes | int | float | None
            )
    assert refused > 150


def test_the_batch_of_python_2_is_a_pickle() -> None:
    """The tests' own bytes are sound: pickletools reads every opcode."""
    opcodes = [opcode.name for opcode, _, _ in pickletools.genops(batch_of_python_2())]
    assert opcodes[-1] == "STOP"
    assert "SHORT_BINSTRING" in opcodes
