"""The `guard-output` hook: text that people do not see and agents obey, and changes to what agents are told.

Before a job it looks at the task; after it at what the agent said and at the names of the files that it changed. It finds

- hidden characters: invisible ones, those that turn the direction of text, and letters of the tag block, which spell words that no
  editor shows;
- injected orders: sentences that speak to a model and not to a reader, such as "ignore all previous instructions";
- instruction files: the job changed a file that tells agents what to do, so somebody should read it before the next job obeys it.

A hook is shown names and words, not the contents of files: the last kind names the file for a reviewer and does not judge it.
"""

import fnmatch
import json
import re
import unicodedata

from wit_world import exports
from wit_world.exports.hooks import (
    Annotation,
    PullRequestVerdict_Keep,
    PullRequestVerdict_Veto,
    Review,
    Verdict_Proceed,
    Verdict_Reject,
)

HIDDEN = "hidden-characters"
ORDERS = "injected-orders"
FILES = "instruction-files"

# What `config` may say, and what holds where it says nothing.
DEFAULTS = {
    # Kinds of findings that hold a pull request back; the others are only noted.
    "veto": [HIDDEN, ORDERS],
    # Kinds of findings in the task that reject the job.
    "reject": [HIDDEN],
    # Files that tell agents what to do; `*` also stands for `/`.
    "instruction_files": [
        "CLAUDE.md", "*/CLAUDE.md", ".claude/*", "*/.claude/*", "AGENTS.md", "*/AGENTS.md", ".mcp.json", ".codex/*", "GEMINI.md",
        ".cursorrules", ".cursor/*", ".github/copilot-instructions.md", ".github/workflows/*", ".vscode/tasks.json",
    ],
    # More regular expressions that are taken for injected orders.
    "orders": [],
}

# Marks that are invisible in most editors, beside the general category "format".
INVISIBLE = {0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800}
TAGS = range(0xE0000, 0xE0080)
JOINER = "\u200d"

ORDER_PATTERNS = [
    r"(ignore|disregard|forget|override)\s+(all\s+|any\s+)?(of\s+)?(the\s+|your\s+|my\s+)?(previous|prior|earlier|above|preceding|system)\s+"
    r"(instructions?|orders?|prompts?|rules?|messages?)",
    r"(do\s+not|don't|never)\s+(tell|inform|mention\s+(this|it)\s+to|show\s+(this|it)\s+to)\s+(this\s+to\s+)?(the\s+)?(user|human|reviewer)",
    r"(reveal|print|repeat|output)\s+(your|the)\s+(system\s+prompt|hidden\s+instructions)",
    r"you\s+are\s+now\s+(in\s+)?(developer|jailbreak|unrestricted|god)\s*-?\s*mode",
    r"<\s*/?\s*(system|assistant|im_start|im_end)\s*>|<\|im_(start|end)\|>",
    r"(send|post|upload|exfiltrate)\s+[^.\n]{0,60}(api\s*keys?|credentials|secrets|tokens|environment\s+variables)\s+[^.\n]{0,40}(to|via)\s",
]


class WrongConfig(Exception):
    """The profile's `config` does not fit; the text says how."""


def settings(text):
    given = json.loads(text)
    for key, value in given.items():
        if key not in DEFAULTS:
            raise WrongConfig(f"unknown key `{key}`; there are {', '.join(DEFAULTS)}")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise WrongConfig(f"`{key}` must be a list of texts")
        if key in ("veto", "reject"):
            for kind in value:
                if kind not in (HIDDEN, ORDERS, FILES):
                    raise WrongConfig(f"`{key}` names `{kind}`; there are {HIDDEN}, {ORDERS}, {FILES}")
    merged = {**DEFAULTS, **given}
    try:
        merged["patterns"] = [re.compile(p, re.IGNORECASE) for p in ORDER_PATTERNS + merged["orders"]]
    except re.error as error:
        raise WrongConfig(f"`orders`: {error.pattern!r} is no regular expression: {error}") from error
    return merged


def is_hidden(text, at):
    letter = text[at]
    # A joiner between two pictures makes one picture of them; anywhere else it hides something.
    if letter == JOINER:
        around = text[max(at - 1, 0)] + text[min(at + 1, len(text) - 1)]
        return not all(unicodedata.category(c) in ("So", "Sk", "Mn") for c in around)
    return unicodedata.category(letter) in ("Cf", "Co") or ord(letter) in INVISIBLE


def hidden(text):
    """Which hidden characters a text holds, and what those of the tag block spell."""
    found = [c for at, c in enumerate(text) if ord(c) > 0x7F and is_hidden(text, at)]
    if not found:
        return None
    names = sorted({unicodedata.name(c, f"U+{ord(c):04X}").lower() for c in found if ord(c) not in TAGS})
    spelled = "".join(chr(ord(c) - TAGS.start) for c in found if ord(c) in TAGS)
    parts = [", ".join(names[:5])] if names else []
    if spelled:
        parts.append(f"tag letters that spell {spelled[:200]!r}")
    return f"{len(found)} ({'; '.join(parts)})"


def orders(text, patterns):
    """The first sentence that gives orders to a model. Hidden letters do not keep it from being found."""
    plain = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Co"))
    for pattern in patterns:
        match = pattern.search(plain)
        if match:
            return " ".join(match.group().split())[:200]
    return None


def instruction_files(paths, patterns):
    return [path for path in paths if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)]


def look(text, config):
    """The findings in a text, by kind."""
    findings = {}
    if characters := hidden(text):
        findings[HIDDEN] = characters
    if order := orders(text, config["patterns"]):
        findings[ORDERS] = repr(order)
    return findings


class Hooks(exports.Hooks):
    def pre_job(self, job, config, plan):
        try:
            config = settings(config)
        except WrongConfig as error:
            return Verdict_Reject(f"the hook's `config` in profile.yml does not fit: {error}")
        findings = look(job.task, config)
        rejected = [f"{kind}: {what}" for kind, what in findings.items() if kind in config["reject"]]
        if rejected:
            return Verdict_Reject(f"the task holds {'; '.join(rejected)}; type it anew instead of copying it")
        return Verdict_Proceed()

    def post_job(self, job, config, run):
        try:
            config = settings(config)
        except WrongConfig as error:
            return Review([], PullRequestVerdict_Veto(f"the hook's `config` in profile.yml does not fit: {error}"))
        findings = look("\n".join([run.output, *run.changed_files]), config)
        if files := instruction_files(run.changed_files, config["instruction_files"]):
            findings[FILES] = ", ".join(files[:20])
        held_back = [f"{kind}: {what}" for kind, what in findings.items() if kind in config["veto"]]
        annotations = [Annotation(kind, what) for kind, what in findings.items()]
        if held_back:
            return Review(annotations, PullRequestVerdict_Veto("; ".join(held_back)))
        return Review(annotations, PullRequestVerdict_Keep())
