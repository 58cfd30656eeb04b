import pytest
from helpers import shared_path

from step import StepError
from step.classes import AVA_CLASS_NAMES
from step.evaluation.label_map import read_label_map


def test_the_challenges_map():
    names = read_label_map(shared_path("real/ava_meta/ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt"))
    assert len(names) == 60
    assert all(AVA_CLASS_NAMES[label] == name for label, name in names.items())


def test_version_2_2s_map():
    assert sorted(read_label_map(shared_path("real/ava_meta/ava_action_list_v2.2.pbtxt"))) == list(range(1, 81))


def test_line_ends_and_quotes(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_bytes(b'item {\r\n  name: \'stand\'\r\n  id: 12\r\n}\r\nitem { id: 3 name: "a \\"b\\"" }')
    assert read_label_map(path) == {12: "stand", 3: 'a "b"'}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no class"),
        ("item {\n name: 'a'\n}", "class 1 of 1: is without id"),
        ("item { name: 'a' id: 1 }\nitem { id: 2 }", "class 2 of 2: is without name"),
        ("item { name: 'a' id: 1 }\nitem { name: 'b' id: 1 }", "class 2 of 2: id 1 stands there twice, for 'a' too"),
    ],
)
def test_wrong_maps(text, message, tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(StepError, match=message):
        read_label_map(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('item { name: "walk" id: 14 }\nitem {\n  name: "sit"\n', 3),
        ('item { name: "walk" id: 14 }\n\n  id: 3 }\n', 3),
        ('item { name: "walk" id: 14 }\nitem { name: "si', 2),
        ('xitem { name: "walk" id: 14 }\nitem { name: "sit" id: 11 }', 1),
    ],
)
def test_half_of_a_class_is_an_error(text, line, tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(StepError, match=rf"map.pbtxt, line {line}: is no label map .*; was the file cut\?"):
        read_label_map(path)


def test_an_id_of_ten_thousand_digits(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text('item { name: "walk" id: ' + "1" * 10_000 + " }")
    with pytest.raises(StepError, match=r"map.pbtxt, line 1: is no label map .{1,200}; was the file cut"):
        read_label_map(path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('item { name: "walk" id : 12 }', {12: "walk"}),
        ("item: < name: 'a\\x41\\101' , id: 0x0C; >  # c", {12: "aAA"}),
        ('# item { name: "no" id: 1 }\nitem { name: "x # y" "z" id: 3 } # end', {3: "x # yz"}),
        ("item [ { name: 'caf\\303\\251' id: 1 }, { name: '\\'b\\'' id: 2 } ]", {1: "café", 2: "'b'"}),
        ('label { name: "sit" label_id: 11 label_type: PERSON_MOVEMENT }', {11: "sit"}),
        (
            'item { name: "/m/1" id: 1 display_name: "sit" keypoints { id: 0 label: "nose" } keypoints { id: 1 } '
            "ancestor_ids: 2 ancestor_ids: 3 descendant_ids: [4, 5] frequency: RARE instance_count: 7 }",
            {1: "/m/1"},
        ),
    ],
)
def test_protobufs_text_format(text, names, tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    assert read_label_map(path) == names


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("item { nam: 'a' id: 1 }", "nam.*; label maps have name, id, label_id,"),
        ("item { name: 'a' id: 1.5 }", "was the file cut"),
        ("item { name: 'a' id: 1 id: 2 }", "was the file cut"),
    ],
)
def test_nothing_is_skipped(text, advice, tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(StepError, match=f"line 1: is no label map .*{advice}"):
        read_label_map(path)
