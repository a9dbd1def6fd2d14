"""report.html: an overoptimisation result as one page that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from rlx.experiments.overoptimization import tables
from rlx.experiments.overoptimization.figures import Picture, slug, write_figures
from rlx.experiments.overoptimization.tables import Html, escape, mark
from rlx.experiments.overoptimization.values import (
    arms_of,
    by_optimizer,
    greek,
    number,
    numbers,
    optimizer_name,
    peak_and_end,
    show,
    weakest,
)

PAGE = Path(__file__).with_name("page.html")
CONTENTS = {
    "short": "In short",
    "question": "What was asked",
    "reading": "How to read the figures",
    "worlds": "The worlds",
    "studies": "The studies",
    "signatures": "Which signatures come out",
    "trends": "Coefficients against size",
    "laws": "The laws and their rivals",
    "control": "The control",
    "run": "How this was run",
}


def write_report(result: dict[str, Any], folder: Path) -> Path:
    """Write the figures of a result to `folder`/figures, and the page that tells its story to `folder`/report.html.

    Args:
        result: of the experiment, or result.json as it was read: a missing number (NaN or null) is shown as a dash.
        folder: where to; made if it is not there.

    Returns:
        The page.

    Raises:
        ImportError: matplotlib is missing.
        OSError: a file cannot be written.
    """
    figures = folder / "figures"
    pictures = write_figures(result, figures)
    numbered = {picture.name: index for index, picture in enumerate(pictures, 1)}
    shown: dict[str, Html] = {}
    for picture in pictures:
        made = figure(picture, numbered[picture.name], figures / f"{picture.name}.svg")
        shown[picture.section] = Html(shown.get(picture.section, "") + made)
    page = folder / "report.html"
    page.write_text(Template(PAGE.read_text("utf-8")).substitute(sections(result, shown)), "utf-8")
    return page


def sections(result: dict[str, Any], shown: dict[str, Html]) -> dict[str, str]:
    """Give what stands in the page's places; `shown` are the figures by section."""
    worlds, study = result["worlds"], next(iter(result["studies"]), None)
    legend = ", ".join(f"{mark(holds)} {tables.MARKS[holds][2]}" for holds in (True, False, None))
    return {
        "preset": escape(result["preset"]),
        "contents": contents(result["studies"]),
        "facts": facts(result),
        "short": short(result),
        "headline": shown.get("headline", ""),
        "worlds": "".join(map(world_section, worlds)) or nothing(),
        "studies": "".join(study_section(worlds, each, shown) for each in result["studies"]) or nothing(),
        "key": legend,
        "signatures": signature_section(result["signatures"]),
        "trends": trend_section(result, shown.get("trends", "")),
        "laws": shown.get("rivals", "") + tables.rival_table(worlds) if "rivals" in shown else nothing(),
        "control": control_section(worlds, study) + shown.get("control", ""),
        "run": run_section(result),
    }


def figure(picture: Picture, index: int, file: Path) -> Html:
    """Put a figure into the page, as a picture within it: its names and styles stay its own."""
    data = base64.b64encode(file.read_bytes()).decode()
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(picture.alt)}">'
    caption = f"<figcaption><b>Figure {index}.</b> {escape(picture.caption)}</figcaption>"
    return Html(f'<figure id="figure-{picture.name}"><div class="scroll">{image}</div>{caption}</figure>\n')


def contents(studies: Sequence[dict[str, Any]]) -> str:
    """List the sections, the studies among them."""
    lines = []
    for anchor, title in CONTENTS.items():
        lines.append(f'<li><a href="#{anchor}">{title}</a></li>')
        if anchor == "studies":
            lines += [
                f'<li class="deep"><a href="#{anchor_of(each)}">{escape(each["title"])}</a></li>' for each in studies
            ]
    return "\n".join(lines)


def anchor_of(study: dict[str, Any]) -> str:
    """Name a study's place in the page."""
    return slug(f"study-{study['name']}")


def facts(result: dict[str, Any]) -> str:
    """Say in a line how much was run."""
    arms = [arm for world in result["worlds"] for arm in world["arms"]]
    items = {
        "worlds": len(result["worlds"]),
        "arms": len(arms),
        "runs": f"{sum(arm['seeds'] for arm in arms):,}",
        "seconds": show(result["wall_s"], 0),
        "device": result["device"],
    }
    return "".join(f"<li>{name} <b>{escape(value)}</b></li>" for name, value in items.items())


def short(result: dict[str, Any]) -> str:
    """Say what happened to the smallest proxy, and how many signatures come out."""
    sentences = []
    if result["worlds"] and result["studies"]:
        world = result["worlds"][0]
        for arms in by_optimizer(arms_of(world, result["studies"][0])).values():
            if (arm := weakest(arms)) and arm["curve"]["proxy"]:
                sentences.append(hump(world["name"], arm))
    holds = [each["holds"] for each in result["signatures"]]
    if holds:
        sentences.append(
            f"Of {len(holds)} signatures looked for, over all worlds, {holds.count(True)} come out, "
            f"{holds.count(False)} do not and {holds.count(None)} are not decided."
        )
    return paragraphs(sentences, "short") if sentences else nothing()


def hump(world: str, arm: dict[str, Any]) -> str:
    """Tell one arm's story."""
    (d, peak, end), proxy = peak_and_end(arm), numbers(arm["curve"]["proxy"]["mean"])
    proxy = proxy[np.isfinite(proxy)]
    score = f"from {show(proxy[0])} to {show(proxy[-1])}" if len(proxy) else "nowhere that is known"
    after = f"and was {show(end)} at the end" if end < peak else "and was highest at the end"
    return (
        f"In {world}, {optimizer_name(arm['optimizer'])} against the smallest reward model took the proxy {score}. "
        f"Gold rose to {show(peak)} at a KL of {show(d * d, 1)} nats {after}."
    )


def world_section(world: dict[str, Any]) -> str:
    """Describe a world, with texts of its initial policy."""
    items = {
        "gold": world["gold"],
        "policy parameters": show(world["policy_parameters"], 0),
        "nats of entropy a response": show(world["policy_entropy"], 1),
        "mean length": show(world["response_length"], 1),
    }
    line = "".join(f"<li>{name} <b>{escape(value)}</b></li>" for name, value in items.items())
    texts = f'<div class="texts">{tables.world_table(world)}</div>' if world["samples"] else ""
    head = f"<h3>{escape(world['name'])}</h3><p>{escape(world['description'])}</p>"
    return f'{head}<ul class="facts">{line}</ul>{texts}'


def study_section(worlds: Sequence[dict[str, Any]], study: dict[str, Any], shown: dict[str, Html]) -> str:
    """Tell a study: question, finding, figures, fits."""
    head = (
        f'<h3 id="{anchor_of(study)}">{escape(study["title"])}</h3><p class="question">{escape(study["question"])}</p>'
    )
    finding = paragraphs([study["finding"]], "finding") if study["finding"] else ""
    return head + finding + shown.get(f"study {study['name']}", "") + tables.study_tables(worlds, study)


def signature_section(signatures: Sequence[dict[str, Any]]) -> str:
    """Show the signatures, and name those that differ between worlds."""
    if not signatures:
        return nothing()
    found: dict[str, dict[str, bool | None]] = {}
    for each in signatures:
        found.setdefault(each["claim"], {})[each["world"]] = each["holds"]
    lines = []
    for claim, by_world in found.items():
        yes = [world for world, holds in by_world.items() if holds]
        if yes and False in by_world.values():
            lines.append(f"<li>{escape(claim)}: only in {escape(', '.join(yes))}</li>")
    differ = f"<p>Not the same in all worlds:</p><ul>{''.join(lines)}</ul>" if lines else ""
    return tables.signature_table(signatures) + differ


def trend_section(result: dict[str, Any], figures: str) -> str:
    """Say plainly which trends agree with Gao's, and show all of them."""
    trends, gao = result["trends"], result.get("gao")
    if not trends:
        return nothing()
    parts = []
    for holds, words in ((True, "Agrees with them"), (False, "Does not agree"), (None, "Not decided")):
        names = [
            f"{greek(trend['coefficient'])} against {trend['against']} ({trend['world']})"
            for trend in trends
            if trend["gao"] and trend["comes_out"] is holds
        ]
        if names:
            parts.append(f"<p>{mark(holds)} <b>{words}:</b> {escape('; '.join(names))}.</p>")
    parts += [figures, tables.trend_table(trends)]
    for against in dict.fromkeys(trend["against"] for trend in trends):
        parts.append(tables.coefficient_table(trends, against))
    return "".join(parts) + (tables.gao_table(gao) if gao else "")


def control_section(worlds: Sequence[dict[str, Any]], study: dict[str, Any] | None) -> str:
    """Show how far gold falls under each gold reward."""
    if not study or len({world["gold"] for world in worlds}) < 2:
        return nothing("All worlds of this result have the same kind of gold: there is no control.")
    return tables.control_table(worlds, study)


def run_section(result: dict[str, Any]) -> str:
    """Give all that is needed to run it again."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    config = json.dumps(result["config"], indent=2, ensure_ascii=False, default=str)
    return (
        f"<pre><code>{escape(result['command'])}</code></pre>"
        f"<p>Commit <code>{escape(result['commit'])}</code> on {escape(result['device'])}; {escape(versions)}. "
        f"{show(number(result['wall_s']) / 60, 1)} minutes in all.</p>"
        f'<div class="stages">{tables.stage_table(result["stages"])}</div>'
        f"<details><summary>The whole configuration</summary><pre><code>{escape(config)}</code></pre></details>"
    )


def paragraphs(sentences: Iterable[str], kind: str) -> str:
    """Put sentences into a box, each a paragraph."""
    return f'<div class="{kind}">{"".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)}</div>'


def nothing(words: str = "Not part of this result.") -> str:
    """Say that there is nothing to show."""
    return f"<p>{escape(words)}</p>"
