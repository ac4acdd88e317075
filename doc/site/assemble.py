#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Assembles what Antora reads: assemble.py TARGET. Run in the project's root.

The pages are doc/*.adoc, and doc/performance.md and CHANGELOG.md, which become AsciiDoc here. A link to another file of the project
becomes an attachment of the site. Prints the pages with their titles, and what is wrong; exit 1 if anything is.
"""
import re
import shutil
import sys
from pathlib import Path

mistakes = []
attachments = set()


def attach(page, target):
    """The address in the site of a file of the project, which `doc/` links to."""
    path = (Path("doc") / target).resolve()
    if not path.is_file() or not path.is_relative_to(Path.cwd()):
        mistakes.append(f"{page}: no file {target}")
        return target
    attachments.add(path.relative_to(Path.cwd()))
    return "{attachmentsdir}/" + str(path.relative_to(Path.cwd()))


def link(page, target, text):
    """A link of AsciiDoc, to a page or to a file."""
    name, _, anchor = target.partition("#")
    anchor = "#" + anchor if anchor else ""
    if re.match(r"[a-z]+:", target):
        return f"{target}[{text}]"
    if not name:
        return f"xref:{anchor}[{text}]"
    if name == "performance.adoc":
        mistakes.append(f"{page}: write performance.md, which code hosts find")
    here = name.removeprefix("doc/").removeprefix("../") # of the changelog, and to it
    if here in ("performance.md", "CHANGELOG.md") or re.fullmatch(r"[\w-]+\.adoc", here):
        return f"xref:{here.replace('.md', '.adoc')}{anchor}[{text}]"
    return f"link:{attach(page, name)}[{text}]"


def from_asciidoc(page, text):
    if "++" in re.sub(r"^----\n.*?^----$", "", text, flags=re.S | re.M):
        mistakes.append(f"{page}: AsciiDoc drops ++ outside of code blocks: write {{cpp}}, or {{plus}}{{plus}}")
    return re.sub(r"\b(?:link|xref):((?!\{)[^\[\s:]*)\[([^\]]*)\]", lambda m: link(page, m[1], m[2]), text)


def from_markdown(page, text):
    """Headings, paragraphs, lists, tables, links, code, and pictures for both themes: what doc/performance.md has."""
    def inline(line):
        line = re.sub(r"\[([^\]]*)\]\(([^)]*)\)", lambda m: link(page, m[2], m[1]), line)
        return re.sub(r"\*\*(.+?)\*\*", r"*\1*", line)

    def row(line):
        return [cell.strip().replace("\\|", "{vbar}") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]

    def picture(match):
        return "".join(f"\nimage::{source}[{match[2]!r},role=for-{theme}]\n".replace("'", '"')
                       for theme, source in (("light", match[3]), ("dark", match[1])))

    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.S)
    text = re.sub(r"<picture><source [^>]*srcset=\"([^\"]+)\"><img alt=\"([^\"]*)\" src=\"([^\"]+)\"></picture>", picture, text)
    result = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("```"):
            end = lines.index("```", at + 1)
            result += [f"[source,{line[3:]}]" if line[3:] else "", "----", *lines[at + 1:end], "----"]
            at = end
        elif line.startswith("|") and at + 1 < len(lines) and re.match(r"\|[\s:|-]+$", lines[at + 1]):
            columns = [">2" if cell.endswith(":") else "3" for cell in row(lines[at + 1])]
            result += [f"[%header,cols=\"{','.join(columns)}\"]", "|==="]
            result += ["".join("|" + inline(cell) + " " for cell in row(line)), ""]
            at += 2
            while at < len(lines) and lines[at].startswith("|"):
                result += ["| " + inline(cell) for cell in row(lines[at])] + [""]
                at += 1
            result += ["|===", ""]
            continue
        elif re.match(r"#+ ", line):
            result.append(inline(re.sub(r"^#+", lambda m: "=" * len(m[0]), line)))
        elif re.match(r" *- ", line):
            result.append(inline(re.sub(r"^( *)- ", lambda m: "*" * (len(m[1]) // 2 + 1) + " ", line)))
        else:
            result.append(inline(line))
        at += 1
    return "\n".join(result)


def main():
    module = Path(sys.argv[1]) / "modules/ROOT"
    pages = module / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    written = {}
    for source in sorted([*Path("doc").glob("*.adoc"), Path("doc/performance.md"), Path("CHANGELOG.md")]):
        text = source.read_text(encoding="utf8")
        text = from_markdown(source, text) if source.suffix == ".md" else from_asciidoc(source, text)
        title = re.match(r"= (\S.*)\n", text)
        if not title:
            mistakes.append(f"{source}: no \"= Title\" in the first line")
        written[source.stem + ".adoc"] = title[1] if title else "?"
        (pages / f"{source.stem}.adoc").write_text(text, encoding="utf8")
    titles = {page.name: page.read_text(encoding="utf8").split("\n", 1)[0][2:] for page in pages.glob("*.adoc")}

    # The navigation: without the pages which are not there, and with those which it forgets.
    navigation = Path("doc/site/nav.adoc").read_text(encoding="utf8")
    listed = re.findall(r"^\*+ xref:([^\[#]+)\[", navigation, re.M)
    for name in listed:
        if name not in titles:
            mistakes.append(f"doc/site/nav.adoc lists {name}, which is not there")
            navigation = re.sub(rf"^\*+ xref:{re.escape(name)}\[.*\n", "", navigation, flags=re.M)
    forgotten = sorted(set(titles) - set(listed))
    if forgotten:
        navigation += "\n.Not in the navigation\n" + "".join(f"* xref:{name}[]\n" for name in forgotten)
        mistakes.extend(f"doc/site/nav.adoc does not list {name}" for name in forgotten)
    (module / "nav.adoc").write_text(navigation, encoding="utf8")
    (Path(sys.argv[1]) / "antora.yml").write_text("name: moor\ntitle: Moor\nversion: ~\nnav:\n  - modules/ROOT/nav.adoc\n",
                                                  encoding="utf8")

    for image in Path("doc").glob("*/*.svg"):
        target = module / "images" / image.relative_to("doc")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target)
    for name in attachments:
        target = module / "attachments" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, target)

    for name, title in sorted(titles.items()):
        print(f"  {name:<28} {title}")
    print("\n".join(mistakes))
    return bool(mistakes)


sys.exit(main())
