#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Checks that each public name of include/moor/*.hpp and include/moor/adapt/*.hpp has a documented entry.

check_reference.py          prints what is missing; exit 1 if anything is
check_reference.py --list   prints the public names

Reads the headers as text, so that the check needs no Doxygen and sees names that Doxygen would leave out. An entry
begins with one line "/// Brief." and goes on, if there is more to say, in a comment "/** ... */". Wanted of

- everything: the brief
- functions (not operators): @param for each named parameter, in each overload
- initiating functions (async_*): the completion signature in each overload; in one of them the cancellation, and an
  example; the errors in one of them or in the class
- classes and structs: an example; of classes also the thread safety
"""
import re
import sys
from pathlib import Path

TOKEN = re.compile(r"""
    (?P<brief>///[^\n]*) | (?P<doc>/\*\*.*?\*/) | //[^\n]* | /\*.*?\*/
  | (?P<hash>^[ \t]*\#(?:[^\n]*\\\n)*[^\n]*)
  | (?P<text>"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])')
  | (?P<mark>[{};(),:]) | (?P<other>[^{};(),:/"'\n#]+|.|\n)
""", re.X | re.S | re.M)


class Entry:
    def __init__(self, scope, kind, name, declaration, docs, where):
        self.scope, self.kind, self.name, self.docs, self.where = scope, kind, name, docs, where
        self.declaration = declaration

    @property
    def path(self):
        return "::".join([*self.scope, self.name])

    @property
    def text(self):
        return "\n".join(text for _, text in self.docs)


def without_templates(declaration):
    """The declaration without its leading template parameter lists."""
    declaration = declaration.strip()
    while declaration.startswith("template"):
        depth, at = 0, declaration.index("<")
        while True:
            depth += {"<": 1, ">": -1}.get(declaration[at], 0)
            at += 1
            if depth == 0:
                break
        declaration = declaration[at:].strip()
    return re.sub(r"^(?:\[\[\w+\]\]\s*)+", "", declaration)


def classify(declaration):
    """Kind and name of a declaration; None if it is not for users."""
    d = without_templates(declaration)
    if not d or re.match(r"(friend (class|struct)|static_assert|using namespace|BOOST_|MOOR_DETAIL_DECL|extern)\b", d) or re.search(r"=\s*delete$", d):
        return None
    if m := re.match(r"using\s+(\w+)\s*=", d):
        return "alias", m[1]
    if d.startswith("using"):
        return None
    if m := re.match(r"enum\s+(?:class\s+)?(\w+)", d):
        return "enum", m[1]
    if m := re.match(r"(class|struct)\s+(?:BOOST_\w+\s+)?(\w+)", d):
        return m[1], m[2]
    if m := re.search(r"(operator\s*(?:\(\)|[^\s(]+|\w[^(]*)|~?\b\w+)\s*\(", d.split("=")[0] if "operator" not in d else d):
        return "function", re.sub(r"\s+", " ", m[1]).strip()
    if m := re.search(r"(\w+)\s*(?:=.*|\{.*)?$", d, re.S):
        return ("variable", m[1]) if d[m.start() - 1] != ":" else None # defined for a class
    return None


def parameters(declaration, name):
    """The names of a function's parameters."""
    d = without_templates(declaration)
    text = d[re.search(re.escape(name) + r"\s*\(", d).end():]
    found, depth, current = [], 0, ""
    for c in text:
        if depth == 0 and c in ",)":
            if m := re.search(r"\(\*(\w+)\)", current) or re.search(r"[\s&*](\w+)\s*(?:=.*)?$", current.strip(), re.S):
                if not re.match(r"(?:const\s+)?[\w:]+$", current.strip()) and m[1] not in ("int", "const"):
                    found.append(m[1])
            current = ""
            if c == ")":
                return found
            continue
        depth += {"<": 1, "(": 1, "{": 1, ">": -1, ")": -1, "}": -1}.get(c, 0)
        current += c
    return found


def read(text, file):
    """The public declarations of a header."""
    entries, scopes, docs, declaration = [], [], [], ""
    line, parentheses, skipped = 1, 0, 0

    def is_public():
        return bool(scopes) and all(s["public"] for s in scopes)

    def record():
        nonlocal docs, declaration
        found = is_public() and classify(declaration)
        if found:
            path = [s["name"] for s in scopes]
            entries.append(Entry(path, *found, declaration, docs, f"{file}:{line}"))
        docs, declaration = [], ""
        return found

    for m in TOKEN.finditer(text):
        value = m[0]
        if m["brief"] or m["doc"]:
            if not declaration.strip() and not skipped:
                docs.append(("brief" if m["brief"] else "doc", value))
        elif m["mark"] and skipped:
            skipped += {"{": 1, "}": -1}.get(value, 0)
            if skipped == 0 and parentheses == 0 and not declaration.strip().endswith("="):
                record()
        elif m["mark"] and parentheses and value in "{}":
            if value == "{":
                skipped, declaration = 1, declaration + "="
        elif m["mark"] in ("(", ")"):
            parentheses += 1 if value == "(" else -1
            declaration += value
        elif value == "{" and m["mark"]:
            d = without_templates(declaration)
            if n := re.match(r"(?:inline )?namespace\s*([\w:]*)$", d):
                scopes.append({"name": n[1], "public": n[1] in ("moor", "adapt"), "kind": "namespace"})
                docs, declaration = [], ""
            elif re.match(r"(class|struct|enum)\b", d):
                kind, name = classify(declaration) or ("class", "?")
                if special := re.match(r"(?:class|struct)\s+(\w+<(?:[^<>]|<[^<>]*>)*>)", d):
                    name = special[1]
                scope_public = kind != "class"
                if is_public():
                    entries.append(Entry([s["name"] for s in scopes], kind, name, declaration, docs, f"{file}:{line}"))
                else:
                    scope_public = False
                scopes.append({"name": name, "public": scope_public, "kind": kind})
                docs, declaration = [], ""
            else:
                skipped = 1
        elif value == "}" and m["mark"]:
            if scopes and scopes[-1]["kind"] == "enum":
                record()
            if scopes:
                scopes.pop()
            docs, declaration = [], ""
        elif value == ";" and m["mark"] and not parentheses:
            if re.match(r"(class|struct)\b[^{=(]*$", without_templates(declaration)): # declared ahead
                docs, declaration = [], ""
            else:
                record()
        elif value == "," and m["mark"] and not parentheses and scopes and scopes[-1]["kind"] == "enum":
            record()
        elif value == ":" and m["mark"] and not parentheses and re.fullmatch(r"(public|private|protected)", declaration.strip()):
            scopes[-1]["public"] = declaration.strip() == "public"
            docs, declaration = [], ""
        elif not m["hash"] and not skipped and not value.startswith(("//", "/*")):
            declaration += value
        line += value.count("\n")
    return entries


def complaints(entries):
    by_path = {}
    for e in entries:
        by_path.setdefault(e.path, []).append(e)
    for e in entries:
        overloads = by_path[e.path]
        briefs = [text for kind, text in e.docs if kind == "brief"]
        if not e.docs:
            yield e, "no entry"
            continue
        if len(briefs) != 1 or not re.search(r"[.:!]$", briefs[0].strip()) or "@copy" in briefs[0]:
            yield e, "no brief of one line"
        if e.kind == "function" and not e.name.startswith("operator") and not e.name.startswith("~"):
            for name in parameters(e.declaration, e.name):
                if not re.search(rf"@param\s+(?:\w+,)*{name}\b", e.text):
                    yield e, f"no @param {name}"
        if e.kind == "function" and e.name.startswith("async_"):
            owner = next((o for o in entries if o.path == "::".join(e.scope)), None)
            if "Completion Signature" not in e.text:
                yield e, "no completion signature"
            for wanted, texts in {
                "Per-Operation Cancellation": overloads, "par Example": overloads,
                "par Errors": overloads + ([owner] if owner else []),
            }.items():
                if not any(wanted in o.text for o in texts):
                    yield e, f"no \"{wanted}\""
        if e.kind in ("class", "struct") and e.scope[-1] in ("moor", "adapt"):
            if "@code" not in e.text:
                yield e, "no example"
            if e.kind == "class" and "@par Thread Safety" not in e.text:
                yield e, "no thread safety"


def check_itself():
    """Each of these has a mistake, and only the check's own mistake can miss one."""
    good = '/// F.\n/**\n * @param x X.\n * @par Completion Signature\n * @par Errors\n * @par Per-Operation Cancellation\n * @par Example\n */\n'
    for code, mistakes in {
        "void f();": 1, "/// Two\n/// lines.\nvoid f();": 1, "/// F.\nvoid f(int x);": 1, "/// F.\nvoid f(std::vector<int>& x = {}) {}": 1,
        "/// C.\n/** @code */\nstruct c {\n int x; };": 1, "/// C.\nclass c {};": 2, "/// E.\nenum class e { /** X */ x = 1, y };": 2,
        good + "void async_f(int x);": 0, good.replace("Errors", "X") + "void async_f(int x);": 1,
        "/// C.\n/** @code @par Thread Safety */\nclass c { public:\n /// F.\n c(int) : x_{1} {} private: int x_; };": 0,
    }.items():
        found = [message for _, message in complaints(read("namespace moor {\n" + code + "\n}\n", "itself"))]
        if len(found) != mistakes:
            sys.exit(f"The check is wrong: it finds {found} in {code}")


def main():
    check_itself()
    root = Path(__file__).resolve().parents[2]
    entries = []
    for header in sorted([*(root / "include/moor").glob("*.hpp"), *(root / "include/moor/adapt").glob("*.hpp")]):
        entries += read(header.read_text(encoding="utf8"), header.relative_to(root))
    if sys.argv[1:] == ["--list"]:
        names = {e.path for e in entries
                 if not re.match(r"operator|~", e.name) and e.name != re.sub("<.*", "", e.scope[-1]) and "<" not in e.name
                 and e.scope[-1] != "rebind_executor"}
        print("\n".join(sorted(names)))
        return 0
    failed = False
    for entry, message in complaints(entries):
        failed = True
        print(f"{entry.where}: {entry.path}: {message}")
    print(f"{len({e.path for e in entries})} public names")
    return failed


sys.exit(main())
