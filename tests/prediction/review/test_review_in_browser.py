"""The page of a run in Chromium: seeking, keys, marks that last and can be learnt from, phones, and no network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numbered_videos
import page_in_browser
import pytest

from violence_detection.errors import UnreadableVideo
from violence_detection.prediction.clock import minutes
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.review import marks, review_media, review_page
from violence_detection.prediction.review.review_media import ReviewMedia
from violence_detection.video import browser_video, decode, writer

pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not page_in_browser.CHROMIUM, reason="no chromium installed"),
]
HOSTILE = (
    """<img src=x onerror=alert(1)>&amp;"'</script>#?%41""".replace("/", "\N{DIVISION SLASH}") + "\udcff"
)
COUNTED = "1 looked at; --learn needs 10 in 3 videos"


def _write_mp4(path: Path, n_frames: int) -> Path:
    with writer.h264(path, 10.0) as put:
        for number in range(n_frames):
            put(numbered_videos.frame(number))
    return path


def _verdict(path: Path, ps: list[float]) -> Verdict:
    windows = tuple(JudgedWindow(2.0 * i, 2.0 * i + 2, p) for i, p in enumerate(ps))
    return Verdict(str(path), windows, EventConfig(merge_gap_s=0.0), 2.0 * len(ps), 2.0 * len(ps), fps=10.0)


def _page(folder: Path) -> tuple[Path, list[Verdict]]:
    """Write a page of a video with an odd name, which browsers play, and of one that they do not play."""
    folder.mkdir()
    plain = _write_mp4(folder / f"{HOSTILE}.mp4", 240)
    odd = numbered_videos.write(folder / "odd.avi", 60, 10.0)
    verdicts = [
        _verdict(plain, [0.1, 0.2, 0.9, 0.1, 0.1, 0.8, 0.7, 0.1, 0.2, 0.1, 0.3, 0.1]),
        _verdict(odd, [0.1, 0.2, 0.3]),
    ]
    media = {}
    for name, verdict in zip(("plain", "odd"), verdicts, strict=True):
        review_media.write(verdict, folder / "page", name, "made of this")
        media[verdict.path] = review_media.read(verdict, folder / "page", name)
    failures = [UnreadableVideo("<b>broken</b>.avi", "the file is <empty>")]
    return review_page.write(folder / "page", verdicts, media, failures, "m" * 32), verdicts


def test_what_browsers_play_is_linked_and_the_rest_copied(tmp_path: Path) -> None:
    page, (plain, odd) = _page(tmp_path / "run")
    found = [review_media.read(v, page.parent, n) for v, n in ((plain, "plain"), (odd, "odd"))]
    assert [m.is_copy for m in found] == [False, True]
    assert found[0].video.startswith("./../%3Cimg")
    assert found[1].video == "./media/odd.mp4"
    copy = decode.probe(page.parent / "media" / "odd.mp4")
    assert (copy.n_frames, copy.fps, copy.codec) == (60, 10.0, "h264")
    assert browser_video.plays(page.parent / "media" / "odd.mp4")
    assert [len(m.events) for m in found] == [2, 0]
    assert review_media.write(plain, page.parent, "plain", "made of this") == []
    assert len(review_media.write(plain, page.parent, "plain", "made of that")) == 3
    assert review_media.read(odd, page.parent, "another").missing


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    page_path, verdicts = _page(tmp_path / "run")
    said: list[str] = []
    asked: list[str] = []
    with page_in_browser.browser() as browser:
        session = browser.new_context(viewport={"width": 1200, "height": 900})
        page = session.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_path.as_uri())
        first = page.locator("section.video").first
        time = "document.querySelector('video').currentTime"
        _check_seeking(page, first, time)
        saved = _check_marks(page, first, tmp_path)
        _check_the_file(saved, verdicts)
        page.reload()
        assert page.locator("#count").inner_text() == f"4 marks, {COUNTED}"
        assert page.locator("[data-do=right][aria-pressed=true]").count() == 1
        _check_loading(browser, page_path, saved, tmp_path)
        _check_phone(browser, page_path, tmp_path)
        session.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []


def test_marks_are_neither_replaced_nor_taken_over_unasked(tmp_path: Path) -> None:
    page_path, verdicts = _page(tmp_path / "run")
    judged_by_both = [replace(v, model="n" * 32) for v in verdicts]
    media = {v.path: review_media.ReviewMedia(missing="not made") for v in verdicts}
    of_another = review_page.write(tmp_path / "other", judged_by_both, media)
    not_told = review_page.write(tmp_path / "not_told", verdicts, media)
    one, two = (tmp_path / f"{name}.json" for name in ("one", "two"))
    with page_in_browser.browser() as browser, browser.new_context() as session:
        page = session.new_page()
        asked: list[str] = []
        answers = iter([False, True])

        def answer(dialog: Any) -> None:
            asked.append(dialog.message)
            dialog.accept() if next(answers) else dialog.dismiss()

        page.on("dialog", answer)
        page.goto(page_path.as_uri())
        first = page.locator("section.video").first
        right = first.locator("[data-do=right]")
        right.first.click()
        _save(page, one)
        right.first.click()
        right.nth(1).click()
        page.get_by_label("I looked at all of it").first.check()
        _save(page, two)

        page.locator("#load").set_input_files(one)
        _until(page, "document.getElementById('said').textContent.startsWith('Not loaded')")
        assert right.nth(1).get_attribute("aria-pressed") == "true"
        page.locator("#load").set_input_files(one)
        _until(page, "document.getElementById('said').textContent.startsWith('Loaded 1 mark.')")
        assert right.first.get_attribute("aria-pressed") == "true"
        assert [text.partition("?")[0] for text in asked] == [
            "Replace the marks on this page (1 mark, 1 looked at) with those in one.json (1 mark)"
        ] * 2
        page.locator("#load").set_input_files(one)
        page.wait_for_timeout(200)
        assert len(asked) == 2, "nothing would be lost"

        # the same videos judged by another model
        other = session.new_page()
        other.goto(of_another.as_uri())
        assert other.locator("#count").inner_text() == "no marks"
        assert "of another model's events" in other.locator("#said").inner_text()
        other.locator("#load").set_input_files(one)
        _until(
            other, "document.getElementById('said').textContent.startsWith('Cannot load one.json: its marks')"
        )
        other.locator("[data-do=wrong]").first.click()
        other.reload()
        assert other.locator("[data-do=wrong][aria-pressed=true]").count() == 1
        page.reload()
        assert page.locator("[data-do=right][aria-pressed=true]").count() == 1
        assert page.locator("[data-do=wrong][aria-pressed=true]").count() == 0

        # a page that does not name its model keeps the model of its marks
        unknown = session.new_page()
        unknown.goto(not_told.as_uri())
        assert unknown.locator("[data-do=right][aria-pressed=true]").count() == 1
        _save(unknown, two)
        assert marks.read(two).model == "m" * 32

        # if a page is open twice, each keeps what is marked in the other
        second = session.new_page()
        second.goto(page_path.as_uri())
        second.locator("section.video").first.locator("[data-do=wrong]").nth(1).click()
        _until(page, "document.querySelectorAll('[data-do=wrong][aria-pressed=true]').length === 1")


def _camera_page(
    camera: Path, ps: list[float], monkeypatch: pytest.MonkeyPatch, size: int = 1000, to: str = "page"
) -> Path:
    """Write the page of a run in a camera's own folder, of a recording whose name other cameras use as well."""
    camera.mkdir(exist_ok=True)
    monkeypatch.chdir(camera)
    Path("1.mp4").write_bytes(bytes(size))
    verdict = replace(_verdict(Path("1.mp4"), ps), real_path=str(camera / "1.mp4"))
    media = {verdict.path: review_media.ReviewMedia(missing="not made")}
    return review_page.write(Path(to).absolute(), [verdict], media, (), "m" * 32)


def test_each_camera_has_its_own_marks_though_recordings_have_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ps = [0.1, 0.9, 0.1]
    gate = _camera_page(tmp_path / "gate", ps, monkeypatch)
    hall = _camera_page(tmp_path / "hall", ps, monkeypatch, size=2000)
    saved = tmp_path / "marks.json"
    with page_in_browser.browser() as browser, browser.new_context() as session:
        page = session.new_page()
        page.goto(gate.as_uri())
        page.locator("[data-do=right]").click()
        _save(page, saved)
        assert marks.read(saved).videos == {"1.mp4": marks.MarkedVideo(str(tmp_path / "gate" / "1.mp4"), 6.0)}
        page.goto(hall.as_uri())
        assert page.locator("#count").inner_text() == "no marks"
        assert page.locator("[aria-pressed=true]").count() == 0
        page.locator("#load").set_input_files(saved)
        _until(page, "document.getElementById('said').textContent.includes('other recordings')")
        assert page.locator("#count").inner_text() == "no marks"
        # the gate's recordings, moved to another folder, take the marks
        moved = _camera_page(tmp_path / "archive", ps, monkeypatch)
        page.goto(moved.as_uri())
        assert page.locator("#count").inner_text() == "no marks"
        page.locator("#load").set_input_files(saved)
        _until(page, "document.getElementById('said').textContent.startsWith('Loaded 1 mark')")
        _save(page, saved)
        assert marks.read(saved).videos["1.mp4"].real_path == str(tmp_path / "archive" / "1.mp4")


def test_marks_of_a_recording_that_another_replaced_are_not_laid_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _camera_page(tmp_path / "gate", [0.1, 0.9, 0.1], monkeypatch)
    with page_in_browser.browser() as browser, browser.new_context() as session:
        page = session.new_page()
        page.goto(before.as_uri())
        page.locator("[data-do=right]").click()
        page.get_by_label("I looked at all of it").check()
        assert not page.locator(".replaced").is_visible()

        _camera_page(tmp_path / "gate", [0.1, 0.9, 0.1, 0.1], monkeypatch, size=2000)
        page.reload()
        assert page.locator("#count").inner_text() == "no marks"
        assert page.locator("[aria-pressed=true]").count() == 0
        assert not page.get_by_label("I looked at all of it").is_checked()
        said = page.locator(".replaced").inner_text()
        assert said == (
            f"Marks of another recording of this name are not shown ({tmp_path / 'gate' / '1.mp4'}, 0:06.0 long): "
            "1 mark, 1 looked at."
        )
        page.locator("[data-do=wrong]").click()
        page.reload()
        assert page.locator("#count").inner_text().startswith("1 mark;")
        assert page.locator(".replaced").is_visible()
        saved = tmp_path / "marks.json"
        _save(page, saved)
        assert [m.mark for m in marks.read(saved).by_video["1.mp4"]] == ["wrong"]

        # the first recording, put back, has its marks again
        _camera_page(tmp_path / "gate", [0.1, 0.9, 0.1], monkeypatch)
        page.reload()
        assert page.locator("[data-do=right][aria-pressed=true]").count() == 1
        assert page.locator("[data-do=wrong][aria-pressed=true]").count() == 0
        assert page.get_by_label("I looked at all of it").is_checked()


def _page_of(night: Path, names: str, model: str = "m" * 32, to: str = "page") -> Path:
    """Write the page of a run over recordings that are named by a letter, each with an event from 2 to 4 s."""
    verdicts = []
    for name in names:
        video = night / f"{name}.mp4"
        if not video.exists():
            video.write_bytes(bytes(1000 + ord(name)))
        verdicts.append(replace(_verdict(video, [0.1, 0.9, 0.1]), real_path=str(video)))
    media = {v.path: review_media.ReviewMedia(missing="not made") for v in verdicts}
    return review_page.write(night.parent / to, verdicts, media, (), model)


def _shown(page: Any) -> dict[str, str]:
    """Return by the letter of each recording the mark of its event, and "Looked" if all of it was looked at."""
    return {
        section.locator("h2").inner_text().removesuffix(".mp4"): " ".join(
            [
                *section.locator("[aria-pressed=true]").all_inner_texts(),
                *(["Looked"] if section.locator("[data-do=reviewed]").is_checked() else []),
            ]
        )
        for section in page.locator("section.video").all()
    }


def _mark(page: Any, name: str, button: str) -> None:
    section = page.locator("section.video").filter(has=page.locator("h2", has_text=f"{name}.mp4"))
    if button == "Looked":
        section.get_by_label("I looked at all of it").check()
    else:
        section.get_by_role("button", name=button, exact=True).click()


def test_the_script_writes_times_as_the_page_does_and_counts_videos_as_learn_does(tmp_path: Path) -> None:
    """Events begin at quarters of a second, which to one decimal a browser rounds up and Python to the even digit."""
    ps = [0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1]
    windows = tuple(JudgedWindow(2.5 * i, 2.5 * i + 5, p) for i, p in enumerate(ps))
    verdicts = [Verdict(f"{n}.mp4", windows, EventConfig(), 22.5, 22.5, fps=10.0) for n in "abc"]
    media = {v.path: ReviewMedia(missing="none") for v in verdicts}
    path = review_page.write(tmp_path, verdicts, media)
    with page_in_browser.browser() as browser, browser.new_context() as session:
        page = session.new_page()
        page.goto(path.as_uri())
        start = minutes(verdicts[0].events[0].start_s)
        assert start == "0:11.2"
        assert start in page.locator("section.video").first.inner_text()
        _mark(page, "a", "Wrong")
        assert page.locator("#said").inner_text().startswith(f"Event at {start}: ")
        assert "needs 10 in 3 videos" in page.locator("#count").inner_text()
        page.evaluate(
            "marks = Array.from({length: 10}, (_, i) => ({...marks[0], end_s: 12 + i / 10})); draw()"
        )
        _mark(page, "b", "Looked")
        assert "needs" in page.locator("#count").inner_text()
        _mark(page, "c", "Looked")
        assert page.locator("#count").inner_text() == "10 marks, 2 looked at"


def test_marks_stay_where_a_run_has_one_video_more_or_one_fewer(tmp_path: Path) -> None:
    night, saved = tmp_path / "night", tmp_path / "marks.json"
    night.mkdir()
    with page_in_browser.browser() as browser, browser.new_context() as session:
        page = session.new_page()
        page.goto(_page_of(night, "ab").as_uri())
        _mark(page, "a", "Right")
        _mark(page, "b", "Looked")

        _page_of(night, "abc")
        page.reload()
        assert _shown(page) == {"a": "Right", "b": "Looked", "c": ""}
        assert page.locator("#count").inner_text() == "1 mark, 1 looked at; --learn needs 10 in 3 videos"
        _save(page, saved)
        assert [[m.mark for m in found] for found in marks.read(saved).by_video.values()] == [["right"], []]
        _mark(page, "a", "Wrong")
        _mark(page, "c", "Right")
        page.reload()
        assert _shown(page) == {"a": "Wrong", "b": "Looked", "c": "Right"}
        of_b = "Object.values(localStorage).filter(text => text.includes('b.mp4')).length"
        assert page.evaluate(of_b) == 1, (
            "the browser's room is not filled with the same marks for each set of videos"
        )

        # the latest mark counts, although this page has marks of its own, which are older
        _page_of(night, "ab")
        page.reload()
        assert _shown(page) == {"a": "Wrong", "b": "Looked"}
        _save(page, saved)
        assert list(marks.read(saved).by_video) == [str(night / "a.mp4"), str(night / "b.mp4")]
        _mark(page, "a", "Wrong")
        page.reload()
        assert _shown(page) == {"a": "", "b": "Looked"}

        # a mark that was taken back stays so, also on pages of other sets of videos
        _page_of(night, "abc")
        page.reload()
        assert _shown(page) == {"a": "", "b": "Looked", "c": "Right"}
        _page_of(night, "acd")
        page.reload()
        assert _shown(page) == {"a": "", "c": "Right", "d": ""}

        # if two pages are open, neither undoes the other's marks of a video that both have
        other = session.new_page()
        other.goto(_page_of(night, "ac", to="other").as_uri())
        _mark(other, "a", "Right")
        _until(page, "document.querySelectorAll('[data-do=right][aria-pressed=true]').length === 2")
        _mark(page, "d", "Wrong")
        other.reload()
        assert _shown(other) == {"a": "Right", "c": "Right"}

        # marks that the browser has no room for stay on the page until they are saved
        page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); } }")
        _mark(page, "d", "Right")
        _mark(other, "c", "Wrong")
        page.wait_for_timeout(500)
        assert _shown(page)["d"] == "Right"


def test_a_page_takes_from_others_what_is_of_its_recordings_and_model_alone(tmp_path: Path) -> None:
    night, archive = tmp_path / "night", tmp_path / "archive" / "night"
    night.mkdir()
    archive.mkdir(parents=True)
    everything = "Object.entries(localStorage).sort().join()"
    with page_in_browser.browser() as browser, browser.new_context() as session:
        page = session.new_page()
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(_page_of(night, "ab").as_uri())
        _mark(page, "a", "Right")
        _mark(page, "b", "Wrong")
        _mark(page, "b", "Looked")
        kept = json.loads(page.evaluate("Object.values(localStorage)[0]"))
        odd = {
            "text": "{",
            "nothing": "null",
            "empty": json.dumps({**kept, "videos": None, "marks": []}),
            "odd videos": json.dumps({**kept, "videos": [None, {"path": 1}], "aside": {}}),
            "odd groups": json.dumps({**kept, "videos": [], "aside": [None, 1, {"was": kept["videos"][0]}]}),
            "odd times": json.dumps(
                {**kept, "videos": [{**v, "changed": "9999999999999"} for v in kept["videos"]]}
            ),
            "odd mark": json.dumps({**kept, "marks": [{**kept["marks"][0], "mark": "<b>"}]}),
        }
        for name, text in odd.items():
            page.evaluate(f"localStorage.setItem({'violence-detection marks ' + name!r}, {text!r})")
        page.evaluate("localStorage.setItem('of another program', '{')")
        before = page.evaluate(everything)

        _page_of(night, "bc")
        page.reload()
        assert _shown(page) == {"b": "Wrong Looked", "c": ""}
        assert page.locator("#said").inner_text() == ""
        assert page.evaluate(everything) == before, "a page that is looked at keeps nothing"
        _mark(page, "b", "Wrong")
        _mark(page, "c", "Right")
        page.reload()
        assert _shown(page) == {"b": "Looked", "c": "Right"}
        assert set(before.split(",violence")) <= set(page.evaluate(everything).split(",violence"))

        # copies in another folder are other files, and a recording that took another's place is not marked
        page.goto(_page_of(archive, "ab", to="copies").as_uri())
        assert _shown(page) == {"a": "", "b": ""}
        (night / "a.mp4").write_bytes(bytes(5000))
        page.goto(_page_of(night, "acd").as_uri())
        assert _shown(page) == {"a": "", "c": "Right", "d": ""}
        assert page.locator(".replaced:visible").all_inner_texts() == [
            f"Marks of another recording of this name are not shown ({night / 'a.mp4'}, 0:06.0 long): 1 mark."
        ]

        # another model's events
        page.goto(_page_of(night, "bcd", "n" * 32).as_uri())
        assert _shown(page) == {"b": "", "c": "", "d": ""}
        assert "of another model's events" in page.locator("#said").inner_text()
        page.goto(_page_of(night, "de", "n" * 32).as_uri())
        assert page.locator("#said").inner_text() == ""
        # a page that does not name its model
        page.goto(_page_of(night, "bd", "").as_uri())
        assert _shown(page) == {"b": "Looked", "d": ""}
    assert said == []


def _save(page: Any, to: Path) -> None:
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(to)


def _until(page: Any, condition: str) -> None:
    """Wait up to 5 s until a condition in JavaScript holds; the page's policy forbids Playwright's own way to wait."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within 5 s: {condition}")


def _check_seeking(page: Any, first: Any, time: str) -> None:
    assert first.locator("h2").inner_text() == HOSTILE.replace("\udcff", "_") + ".mp4"
    assert page.locator("b").count() == 0, "a name is text"
    assert page.locator("h1").inner_text() == "2 events in 1 of 2 videos, 1 not judged"
    box = first.locator(".curve").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    _until(page, f"Math.abs({time} - 12) < 0.1")
    assert first.locator(".curve").get_attribute("aria-valuetext") == "0:12.0, P(violent) 0.70"
    page.keyboard.press("ArrowLeft")
    _until(page, f"Math.abs({time} - 7) < 0.1")
    page.keyboard.press("ArrowUp")
    _until(page, f"Math.abs({time} - 4) < 0.01")
    page.keyboard.press("ArrowDown")
    _until(page, f"Math.abs({time} - 10) < 0.01")
    page.keyboard.press("Space")
    _until(page, f"{time} > 10.1")
    page.keyboard.press("Space")
    _until(page, "document.querySelector('video').paused")


def _check_marks(page: Any, first: Any, folder: Path) -> Path:
    """Mark an event right, one wrong, a missed fight by keys, one by buttons, and a video as looked at; save it all."""
    first.locator(".seek").first.click()
    _until(page, "document.querySelector('video').currentTime >= 4")
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('video').pause()")
    first.locator("[data-do=right]").first.focus()
    page.keyboard.press("y")
    assert first.locator("[data-do=right]").first.get_attribute("aria-pressed") == "true"
    second = first.locator("[data-do=wrong]").nth(1)
    second.click()
    assert second.get_attribute("aria-pressed") == "true"
    box = first.locator(".curve").bounding_box()
    for share in (0.75, 0.875):
        page.mouse.click(box["x"] + box["width"] * share, box["y"] + 20)
        page.keyboard.press("m")
    assert first.locator(".others li").count() == 1
    other = page.locator("section.video").nth(1)
    missed = other.locator("[data-do=missed]")
    missed.click()
    assert missed.inner_text() == "Missed fight: ends here"
    other.locator(".curve").focus()
    page.keyboard.press("ArrowRight")
    missed.click()
    other.get_by_label("I looked at all of it").check()
    assert page.locator("#count").inner_text() == f"4 marks, {COUNTED}"
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "marks.json"
    saved = folder / "marks.json"
    download.value.save_as(saved)
    return saved


def _check_the_file(saved: Path, verdicts: list[Verdict]) -> None:
    found = marks.read(saved)
    plain, odd = (v.path for v in verdicts)
    assert found.model == "m" * 32
    assert found.reviewed == {odd}
    assert list(found.by_video) == sorted([plain, odd])
    assert [m.mark for m in found.by_video[plain]] == ["right", "wrong", "missed"]
    events = verdicts[0].events
    assert [(m.start_s, m.end_s) for m in found.by_video[plain][:2]] == [(e.start_s, e.end_s) for e in events]
    missed = found.by_video[plain][2]
    assert (missed.start_s, missed.end_s) == pytest.approx((18.0, 21.0), abs=0.1)
    (by_button,) = found.by_video[odd]
    assert (by_button.start_s, by_button.end_s) == pytest.approx((0.0, 5.0), abs=0.1)


def _check_loading(browser: Any, page_path: Path, saved: Path, folder: Path) -> None:
    with browser.new_context() as session:
        page = session.new_page()
        page.goto(page_path.as_uri())
        assert page.locator("#count").inner_text() == "no marks"
        broken = folder / "broken.json"
        broken.write_text(json.dumps({"marks": []}))
        page.locator("#load").set_input_files(broken)
        _until(page, "document.getElementById('said').textContent.includes('it holds no marks')")
        page.locator("#load").set_input_files(saved)
        _until(page, f"document.getElementById('count').textContent === '4 marks, {COUNTED}'")
        page.get_by_role("button", name="Remove").first.click()
        assert page.locator("#count").inner_text() == f"3 marks, {COUNTED}"


def _check_phone(browser: Any, page_path: Path, folder: Path) -> None:
    with browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True, is_mobile=True
    ) as session:
        page = session.new_page()
        page.goto(page_path.as_uri())
        page.screenshot(path=folder / "phone.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate(page_in_browser.BESIDE) == []
        broken = "[...document.images].filter(image => image.complete && !image.naturalWidth).length"
        assert page.evaluate(broken) == 0
        small = (
            """[...document.querySelectorAll("button:not(.seek)")].filter(b => b.offsetHeight < 36).length"""
        )
        assert page.evaluate(small) == 0, "fingers need room"
        unnamed = """[...document.querySelectorAll("button, input, [role=slider], video")].filter(e =>
          !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)).length"""
        assert page.evaluate(unnamed) == 0
