"""One file rules the ranker: it is followed as it changes, and a bad one changes nothing."""

from __future__ import annotations

import json
import logging
import os
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from ranker.objectives import FILE_NAME, RankerFile, Ranking, parse, read, render
from ranker.scoring import RankerConfig
from store.errors import SettingsError


def write(path: Path, text: str, tick: list[int] = [0]) -> None:  # noqa: B006 - a clock of this module
    path.write_text(text)
    tick[0] += 1
    os.utime(path, ns=(tick[0] * 10**9, tick[0] * 10**9))


def test_what_is_rendered_is_read_back(tmp_path: Path) -> None:
    changed = Ranking(weights=RankerConfig(tags=0.7, sources={"graph": 0.25}))
    for ranking in (Ranking(), changed):
        assert parse(render(ranking).encode()) == ranking
    file = tmp_path / FILE_NAME
    assert RankerFile(file).status() == RankerFile(tmp_path / "none").status()
    assert RankerFile(file).current() == Ranking()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[weights]\ntags = -1\n", "weights.tags"),
        ("[weights]\ntags = nan\n", "weights.tags"),
        ("[weights]\ncolour = 1\n", "weights.colour"),
        ("[weights.sources]\ngraph = -0.1\n", "weights.sources.graph"),
        ("[objectives]\nviewer = inf\n", "objectives.viewer"),
        ("[diversity]\nmethod = 'magic'\n", "diversity.method"),
        ("[diversity]\ndpp_theta = 0\n", "diversity.dpp_theta"),
        ("[rules]\nwindow = 0\n", "rules.window"),
        ("[safety]\nhidden_tags = ['']\n", "safety.hidden_tags.0"),
        ("[weights]\ninterest_long = true\n", "weights.interest_long: true and false are no numbers"),
        ("[weights.sources]\ngraph = true\n", "weights.sources: graph: true and false"),
        ("[objectives]\nviewer = false\n", "objectives.viewer"),
        ("[diversity]\npool = true\n", "diversity.pool"),
        ("[recall]\nseconds = true\n", "recall.seconds"),
        ("[recall.quotas]\ngraph = true\n", "recall.quotas: graph"),
        ("[rules]\ncreator = true\n", "rules.creator"),
        ("[[", "TOML"),
        ("more = 1", "more"),
    ],
)
def test_a_bad_file_is_refused_naming_the_field(text: str, named: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse(text.encode())
    assert raised.value.code == "ranker.invalid"
    assert named in raised.value.message


def test_bytes_that_are_no_text_and_a_missing_or_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="UTF-8"):
        parse(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        read(tmp_path / "none.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(SettingsError, match="bytes"):
        read(tmp_path / "huge.toml")


def test_the_file_is_followed_and_a_bad_one_keeps_the_last_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / FILE_NAME
    file = RankerFile(path)
    assert file.status().digest == ""
    write(path, "[objectives]\ncreator = 3.0\n")
    assert file.current().objectives.creator == 3.0
    digest = file.status().digest
    assert len(digest) == 16
    write(path, "[objectives]\ncreator = -3.0\n")
    with caplog.at_level(logging.WARNING):
        assert file.current().objectives.creator == 3.0
        assert file.current().objectives.creator == 3.0
    assert sum("objectives.creator" in record.message for record in caplog.records) == 1
    problem = file.status().problem
    assert problem is not None
    assert problem.code == "ranker.invalid"
    assert file.status().digest == digest
    write(path, "[objectives]\ncreator = 0.5\n")
    assert (file.current().objectives.creator, file.status().problem) == (0.5, None)
    path.unlink()
    assert file.current() == Ranking()


def test_who_starts_on_a_bad_file_has_the_last_good_one_too(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    server = RankerFile(path)
    write(path, "[objectives]\ncreator = 3.0\n")
    assert server.current().objectives.creator == 3.0
    write(path, "[objectives]\ncreator = -3.0\n")
    run = CliRunner()
    shown = run.invoke(app, ["ranker", "show", "--data", str(tmp_path)])
    assert (shown.exit_code, tomllib.loads(shown.stdout)["objectives"]["creator"]) == (0, 3.0)
    assert "objectives.creator" in shown.stderr
    assert f"the last good file ({server.status().digest})" in shown.stderr
    document = json.loads(run.invoke(app, ["ranker", "show", "--json", "--data", str(tmp_path)]).stdout)
    assert (document["source"], document["problem"]["code"]) == ("last_good", "ranker.invalid")
    # What was deleted while nobody looked is no last good file any more.
    path.unlink()
    assert RankerFile(path).current() == Ranking()
    write(path, "[objectives]\ncreator = -3.0\n")
    assert RankerFile(path).current() == Ranking()
    document = json.loads(run.invoke(app, ["ranker", "show", "--json", "--data", str(tmp_path)]).stdout)
    assert (document["source"], document["digest"]) == ("defaults", "")


def test_a_damaged_copy_of_the_last_good_file_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    write(path, "[[")
    (tmp_path / f"{FILE_NAME}.last-good").write_bytes(b"\xff")
    status = RankerFile(path).status()
    assert (status.ranking, status.digest) == (Ranking(), "")
    assert status.problem is not None


def test_an_objective_multiplies_its_terms_and_no_others() -> None:
    ranking = parse(b"[objectives]\nviewer = 2.0\ncreator = 3.0\nplatform = 5.0\n")
    plain, weighted = ranking.weights, ranking.weighted()
    assert weighted.tags == 2 * plain.tags
    assert weighted.refusal == 2 * plain.refusal
    assert weighted.small_creator == 3 * plain.small_creator
    assert weighted.freshness == 5 * plain.freshness
    assert weighted.sources["graph"] == 2 * plain.sources["graph"]
    assert weighted.sources["fresh"] == 3 * plain.sources["fresh"]
    assert weighted.sources["trending"] == 5 * plain.sources["trending"]
    assert weighted.half_mass == plain.half_mass
    assert Ranking().weighted() == RankerConfig()


def test_the_commands_show_and_check(tmp_path: Path) -> None:
    run = CliRunner()
    shown = run.invoke(app, ["ranker", "show", "--data", str(tmp_path)])
    assert shown.exit_code == 0
    assert Ranking.model_validate(tomllib.loads(shown.stdout)) == Ranking()
    path = tmp_path / FILE_NAME
    path.write_text("[rules]\ncreator = 0\n")
    checked = run.invoke(app, ["ranker", "check", str(path)])
    assert checked.exit_code == 1
    assert "ranker.invalid" in checked.stderr
    assert "rules.creator" in checked.stderr
    shown = run.invoke(app, ["ranker", "show", "--data", str(tmp_path)])
    assert shown.exit_code == 0
    assert "rules.creator" in shown.stderr
    path.write_text("[rules]\ncreator = 2\n")
    assert run.invoke(app, ["ranker", "check", str(path)]).exit_code == 0


def test_a_file_need_only_name_what_differs_and_names_no_source_that_is_not_there() -> None:
    ranking = parse(b"[weights.sources]\nfresh = 0.2\n[recall.quotas]\ngraph = 0\n")
    assert ranking.weights.sources == Ranking().weights.sources | {"fresh": 0.2}
    assert ranking.recall.quotas == Ranking().recall.quotas | {"graph": 0}
    for wrong in (b"[weights.sources]\nnosuch = 1\n", b"[recall.quotas]\nnosuch = 1\n"):
        with pytest.raises(SettingsError, match="nosuch"):
            parse(wrong)


@pytest.mark.parametrize(
    "line", ["interest_long = 1e308", "refusal = 1e200", "sources.fresh = 1001", "refusal_look = 2"]
)
def test_a_weight_that_would_drown_all_others_is_refused(line: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(f"[weights]\n{line}\n".encode())
    assert refused.value.code == "ranker.invalid"
