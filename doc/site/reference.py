#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Makes the pages of the reference: reference.py XML PAGES, from Doxygen's XML.

A page for each task, an entry with an anchor for each public name. The text of the comments goes into the pages as
HTML, so that nothing in a comment can be taken for AsciiDoc.
"""
import re
import sys
import xml.etree.ElementTree as ET
from html import escape
from pathlib import Path

# Name, title, purpose, headers.
GROUPS = [
    ("waiting", "Waiting", "Registrations of handles: wait for readiness, and make calls that wait.", ["registration"]),
    ("descriptors", "Descriptors", "In place of Asio's descriptors.", ["descriptor", "stream_descriptor"]),
    ("watchers", "Watchers and sources", "Persistent interest, for C libraries.", ["watcher", "source"]),
    ("poll", "Lists of descriptors", "The call poll(2) as an operation.", ["poll"]),
    ("process", "Child processes", "Wait for the end of a child, and send signals.", ["process"]),
    ("operation", "Operations for adapters", "Keep a handler for the callback of a library.", ["operation"]),
    ("adapt", "Adapters", "C libraries with completion tokens.", ["adapt/libpq", "adapt/libpq_types", "adapt/c_ares", "adapt/c_ares_types", "adapt/inotify", "adapt/inotify_types", "adapt/curl", "adapt/curl_types", "adapt/zmq", "adapt/zmq_types", "adapt/hiredis", "adapt/hiredis_types", "adapt/rdkafka", "adapt/rdkafka_types", "adapt/sd_bus", "adapt/sd_bus_types", "adapt/glib", "adapt/alsa", "adapt/mosquitto", "adapt/mosquitto_types"]),
    ("vocabulary", "Vocabulary", "Interests, events, results of calls, and errors.", ["readiness", "error"]),
    ("service", "The service, and reports", "Metrics, snapshots, shutdown, and reports of mistakes.",
     ["registration_service", "misuse", "inspect", "inspector_options", "version", "src"]),
]
OPERATORS = {"|": "or", "&": "and", "-": "minus", "=": "assign", "|=": "or-assign", "&=": "and-assign",
             "-=": "minus-assign", "==": "equal", "!=": "unequal", "<<": "print", "bool": "bool", "()": "call"}


def text_of(node):
    return re.sub(r"\s+", " ", "".join(node.itertext())).strip() if node is not None else ""


def tidy(code):
    """A declaration in the project's style."""
    code = re.sub(r"<\s+", "<", re.sub(r"\s+>", ">", code))
    code = re.sub(r"\s+(&&|&|\*+)(?=\w)", r"\1 ", code)
    code = re.sub(r"\s+(&&|&|\*+)(?=\s*[,)>]|$)", r"\1", code)
    return re.sub(r"(?<=[\w>])\s*=\s*(?=[\w:{])", " = ", code).replace("moor::", "")


class Item:
    """A public name: a compound, or the overloads of a member."""

    def __init__(self, name, owner, nodes):
        self.owner, self.nodes, self.members = owner, nodes, []
        self.node = nodes[0]
        self.kind = self.node.get("kind")
        self.name = name
        short = name
        if operator := re.match(r"operator\s*(.*)", name):
            short = "operator-" + OPERATORS.get(operator[1], "conversion")
        short = re.sub(r"\W+", "-", re.sub(r"<void\(.*", "", short).replace("~", "destructor-")).strip("-")
        self.anchor = (owner.anchor + "-" if owner else "") + short
        self.page = owner.page if owner else None

    @property
    def brief(self):
        return self.node.find("briefdescription")


class Reference:
    def __init__(self, xml):
        self.xml, self.items, self.mistakes = Path(xml), [], []
        self.places, self.paths = {}, {} # entries by Doxygen's number, and by name
        self.current, self.owner = None, "" # where the text at hand belongs

    # ---- reading

    def load(self, refid):
        return ET.parse(self.xml / f"{refid}.xml").getroot().find("compounddef")

    def read(self):
        found = []
        for namespace in map(self.load, ("namespacemoor", "namespacemoor_1_1adapt")):
            found += [self.compound(inner, None) for inner in namespace.findall("innerclass")]
            found += self.members(namespace, None)
        self.items = [item for item in found if item]
        for item in self.items:
            header = re.sub(r"^.*moor/|[.]hpp$", "", item.node.find("location").get("file"))
            item.page = next((f"reference-{name}" for name, _, _, headers in GROUPS if header in headers), None)
            if not item.page:
                self.mistakes.append(f"{item.name}: no page for the header {header}: see GROUPS in doc/site/reference.py")
                item.page = "reference-service"
            item.place = (header, int(item.node.find("location").get("line")))
            self.note(item)

    def note(self, item):
        for member in item.members:
            member.page = item.page
            self.note(member)
        for node in item.nodes:
            self.places[node.get("id")] = item
        self.paths[f"{item.owner.name}::{item.name}" if item.owner else item.name] = item

    def compound(self, inner, owner):
        if inner.get("prot") != "public":
            return None
        node = self.load(inner.get("refid"))
        if node.find("briefdescription") is None or not text_of(node.find("briefdescription")):
            return None
        item = Item(tidy(text_of(node.find("compoundname"))).split("::")[-1], owner, [node])
        item.members = self.members(node, item)
        for nested in node.findall("innerclass"):
            if child := self.compound(nested, item):
                item.members.append(child)
        item.members.sort(key=lambda member: int(member.node.find("location").get("line")))
        return item

    def members(self, node, owner):
        overloads = {}
        for member in node.iter("memberdef"):
            name = member.find("name").text
            if member.get("prot") != "public" or not text_of(member.find("briefdescription")):
                continue
            if name.startswith(("enable_if", "detail")) or member.get("kind") == "friend" and "class" in text_of(member.find("type")):
                continue
            overloads.setdefault(name, []).append(member)
        found = []
        for name, nodes in overloads.items():
            item = Item(name, owner, nodes)
            if item.kind == "enum":
                for value in nodes[0].findall("enumvalue"):
                    item.members.append(Item(value.find("name").text, item, [value]))
            found.append(item)
        return found

    # ---- text

    def named(self, text):
        """The entry which a name in a comment stands for: a member of the class at hand, or any public name."""
        path = re.sub(r"\(\)$", "", text).removeprefix("moor::")
        target = self.paths.get(f"{self.owner}::{path}")
        if not target and not any(name.endswith("::" + path) for name in self.paths): # of which class?
            target = self.paths.get(path)
        return target if target is not self.current else None

    def link(self, item, text):
        return f'<a href="{item.page}.html#{item.anchor}">{text}</a>'

    def inline(self, node):
        """The content of a paragraph as HTML."""
        result = escape(node.text or "")
        for child in node:
            result += self.element(child) + escape(child.tail or "")
        return result

    def element(self, node):
        inside = {"computeroutput": "code", "emphasis": "em", "bold": "strong"}
        blocks = {"itemizedlist": "ul", "orderedlist": "ol", "listitem": "li", "table": "table", "row": "tr"}
        tag = node.tag
        if tag == "computeroutput" and node.find(".//ref") is None and (target := self.named(text_of(node))):
            return self.link(target, f"<code>{self.inline(node)}</code>")
        if tag in inside:
            return f"<{inside[tag]}>{self.inline(node)}</{inside[tag]}>"
        if tag == "ref":
            target = self.places.get(node.get("refid"))
            return self.link(target, self.inline(node)) if target else self.inline(node)
        if tag == "ulink":
            return f'<a href="{escape(node.get("url"))}">{self.inline(node)}</a>'
        if tag == "linebreak":
            return "<br>"
        if tag == "sp":
            return " "
        if tag == "para":
            return self.paragraph(node)
        if tag in ("programlisting", "verbatim", "preformatted"):
            for space in node.iter("sp"):
                space.text = " "
            lines = ["".join(line.itertext()) for line in node.findall("codeline")] or [node.text or ""]
            while lines and not lines[-1].strip():
                lines.pop()
            code = escape("\n".join(line.rstrip() for line in lines), quote=False)
            return ('<div class="listingblock"><div class="content"><pre class="highlight">'
                    f'<code class="language-cpp hljs" data-lang="cpp">{code}</code></pre></div></div>')
        if tag == "simplesect":
            title = {"return": "Returns", "note": "Note", "see": "See"}.get(node.get("kind"))
            title = title or text_of(node.find("title"))
            return f'<p class="part">{escape(title)}</p>' + "".join(self.paragraph(p) for p in node.findall("para"))
        if tag == "parameterlist":
            title = {"param": "Parameters", "templateparam": "Template parameters", "exception": "Throws"}[node.get("kind")]
            rows = ""
            for item in node.findall("parameteritem"):
                names = ", ".join(text_of(name) for name in item.findall("parameternamelist/parametername"))
                rows += f"<dt><code>{escape(names)}</code></dt><dd>"
                rows += "".join(self.paragraph(p) for p in item.findall("parameterdescription/para")) + "</dd>"
            return f'<p class="part">{title}</p><dl class="parameters">{rows}</dl>'
        if tag == "entry":
            cell = "th" if node.get("thead") == "yes" else "td"
            return f"<{cell}>{''.join(self.inline(p) for p in node.findall('para'))}</{cell}>"
        if tag == "ndash":
            return "&ndash;"
        if tag in blocks:
            inner = "".join(self.element(child) for child in node)
            style = ' class="tableblock"' if tag == "table" else ""
            return f"<{blocks[tag]}{style}>{inner}</{blocks[tag]}>"
        self.mistakes.append(f"doc/site/reference.py knows no element <{tag}>")
        return self.inline(node)

    BLOCKS = {"programlisting", "simplesect", "parameterlist", "itemizedlist", "orderedlist", "table", "verbatim"}

    def paragraph(self, node):
        """A paragraph of Doxygen's may contain blocks; one of HTML may not."""
        result, line = "", escape(node.text or "")
        for child in node:
            if child.tag in self.BLOCKS:
                result += (f"<p>{line}</p>" if line.strip() else "") + self.element(child)
                line = escape(child.tail or "")
            else:
                line += self.element(child) + escape(child.tail or "")
        return result + (f"<p>{line}</p>" if line.strip() else "")

    def text(self, node):
        """Brief and details."""
        brief = self.inline(node.find("briefdescription/para"))
        details = "".join(self.paragraph(p) for p in node.findall("detaileddescription/para"))
        return f'<p class="brief">{brief.strip()}</p>{details}'

    # ---- declarations

    def templates(self, node):
        parameters = []
        for param in node.findall("templateparamlist/param"):
            type_, name, default = (text_of(param.find(tag)) for tag in ("type", "declname", "defval"))
            if "enable_if" not in type_:
                parameters.append((f"{type_} {name}".strip() + (f" = {default}" if default else "")))
        return f"template <{tidy(', '.join(parameters))}>\n" if parameters else ""

    def declaration(self, node, name):
        kind = node.get("kind")
        if kind in ("class", "struct"):
            bases = [self.display(base) for base in node.findall("basecompoundref") if "detail" not in (base.text or "")
                     and "use_guard" not in (base.text or "")]
            return f"{self.templates(node)}{kind} {name}" + (f" : public {', '.join(bases)}" if bases else "") + ";"
        if kind == "enum":
            values = ",\n    ".join(value.find("name").text for value in node.findall("enumvalue"))
            return f"enum class {name} {{\n    {values}\n}};"
        type_ = tidy(text_of(node.find("type")))
        if kind == "typedef":
            target = "implementation-defined" if "detail::" in type_ else type_
            return f"{self.templates(node)}using {name} = {target};"
        if node.tag == "enumvalue" or kind == "variable":
            initial = text_of(node.find("initializer"))
            if kind == "variable":
                return f"{'static ' if node.get('static') == 'yes' else ''}{type_} {name}{' ' + initial if initial.startswith('=') else ''};"
            return name
        arguments = text_of(node.find("argsstring"))
        arguments, arrow, result = arguments.partition("->")
        if arrow and "detail::" not in result:
            arguments += "-> " + result.strip()
        arguments = tidy(arguments).strip()
        type_ = re.sub(r"\b(BOOST_\w+|friend|constexpr|inline)\b ?", "", type_)
        if node.get("static") == "yes":
            type_ = "static " + type_
        line = f"{type_} {name}{arguments};".strip()
        if len(line) > 90 and "(" in line:
            head, _, rest = line.partition("(")
            depth, parts, current = 0, [], ""
            inner, _, tail = rest.rpartition(")") if "->" not in rest else rest.partition(") ->")
            for c in inner:
                depth += {"<": 1, "(": 1, "{": 1, ">": -1, ")": -1, "}": -1}.get(c, 0)
                if c == "," and depth == 0:
                    parts.append(current.strip())
                    current = ""
                else:
                    current += c
            parts.append(current.strip())
            close = ")" if "->" not in rest else ") ->"
            line = head + "(\n    " + ",\n    ".join(parts) + close + tail
        return self.templates(node) + line

    @staticmethod
    def display(node):
        return tidy(text_of(node)).replace("moor::", "")

    # ---- pages

    def code(self, code):
        return f"[source,cpp]\n----\n{code}\n----\n\n"

    def entry(self, item, level):
        owner = item.owner.name if item.owner else ""
        owner = re.sub(r"<void\(.*", "", owner)
        shown = item.name
        if owner and shown == owner:
            shown = "Constructors"
        shown = re.sub(r"<void\(.*", "", shown)
        of = f" [.of]#of {owner}#" if owner else ""
        self.current, self.owner = item, (item.owner or item).name
        result = f"[#{item.anchor}]\n{'=' * level} pass:c[{shown}]{of}\n\n"
        for node in item.nodes:
            result += self.code(self.declaration(node, item.name))
            result += f"++++\n{self.text(node)}\n++++\n\n"
        if item.kind in ("class", "struct") and not item.owner:
            result += self.overview(item)
        nested = [m for m in item.members if m.node.tag != "enumvalue"]
        for value in (m for m in item.members if m.node.tag == "enumvalue"):
            result += f"[#{value.anchor}]\n{'=' * (level + 1)} pass:c[{value.name}] [.of]#of {item.name}#\n\n"
            result += f"++++\n{self.text(value.node)}\n++++\n\n"
        return result + "".join(self.entry(member, level + 1) for member in nested)

    def overview(self, item):
        rows = ""
        for member in item.members:
            name = "constructors" if member.name == re.sub("<.*", "", item.name) else member.name
            brief = self.inline(member.brief.find("para"))
            rows += f'<tr><td><a href="#{member.anchor}"><code>{escape(name)}</code></a></td><td>{brief}</td></tr>'
        return f'++++\n<table class="tableblock members">{rows}</table>\n++++\n\n' if rows else ""

    def write(self, target):
        target = Path(target)
        target.mkdir(parents=True, exist_ok=True)
        index = "= Reference\n\nAll public names, by task. The header `moor.hpp` includes all others.\n\n"
        for name, title, purpose, headers in GROUPS:
            page = f"reference-{name}"
            items = sorted((item for item in self.items if item.page == page),
                           key=lambda item: (headers.index(item.place[0]), item.place[1]))
            used = [header for header in headers if any(item.place[0] == header for item in items)]
            text = f"= Reference: {title[0].lower() + title[1:]}\n:toclevels: 2\n\n{purpose}\n\n"
            text += "Headers: " + ", ".join(f"`moor/{header}.hpp`" for header in used) + "\n\n"
            text += "".join(self.entry(item, 2) for item in items)
            (target / f"{page}.adoc").write_text(text, encoding="utf8")
            rows = ""
            for item in items:
                name = self.link(item, "<code>" + escape(re.sub(r"<void\(.*", "", item.name)) + "</code>")
                rows += f"<tr><td>{name}</td><td>{self.inline(item.brief.find('para'))}</td></tr>"
            index += f"== xref:{page}.adoc[{title}]\n\n{purpose}\n\n"
            index += f'++++\n<table class="tableblock members">{rows}</table>\n++++\n\n'
        (target / "reference.adoc").write_text(index, encoding="utf8")

    def all(self, items=None):
        for item in self.items if items is None else items:
            yield item
            yield from self.all(item.members)


def main():
    reference = Reference(sys.argv[1])
    reference.read()
    reference.write(sys.argv[2])
    anchors = {}
    for item in reference.all():
        if anchors.setdefault((item.page, item.anchor), item) is not item:
            reference.mistakes.append(f"two entries have the anchor {item.page}#{item.anchor}")
    print("\n".join(reference.mistakes + [f"{len(anchors)} entries on {len(GROUPS)} pages"]))
    return bool(reference.mistakes)


sys.exit(main())
