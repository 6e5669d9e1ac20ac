// The `report` hook: what a job came to, as an annotation on its record and as the body of its pull request.
//
// The annotation is one line; the body has the agent's words, a table of what was spent and the files that changed. `config` in
// profile.yml may set `pull_request: false` (the annotation alone) and `max_files` (how many files the body lists, 50).

const DEFAULTS = { pull_request: true, max_files: 50 };

function settings(text) {
  const given = JSON.parse(text);
  for (const [key, value] of Object.entries(given)) {
    if (!(key in DEFAULTS)) {
      throw new Error(`unknown key \`${key}\`; there are ${Object.keys(DEFAULTS).join(", ")}`);
    }
    if (typeof value !== typeof DEFAULTS[key]) {
      throw new Error(`\`${key}\` must be a ${typeof DEFAULTS[key]}`);
    }
  }
  return { ...DEFAULTS, ...given };
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

const tokens = (usage) => usage.inputTokens + usage.cacheReadTokens + usage.cacheWriteTokens + usage.outputTokens;

// One line: `succeeded after 12 turns for $0.42 (81300 tokens), 3 files changed`.
function line(run) {
  const facts = [`${run.status} after ${count(run.turns, "turn")} for $${run.costUsd.toFixed(2)}`];
  if (tokens(run.usage) > 0) facts[0] += ` (${tokens(run.usage)} tokens)`;
  facts.push(`${count(run.changedFiles.length, "file")} changed`);
  if (run.failure) facts.push(`${run.failure}: ${run.message.split("\n")[0]}`);
  return facts.join(", ");
}

// Text in a code fence that it cannot close.
function fenced(text) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((ticks) => ticks[0].length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text.trimEnd()}\n${fence}`;
}

function body(job, run, config) {
  const files = run.changedFiles.slice(0, config.max_files).map((path) => `- \`${path.replaceAll("`", "'")}\``);
  const left = run.changedFiles.length - files.length;
  if (left > 0) files.push(`- and ${left} more`);
  return [
    fenced(run.output || "(the agent said nothing)"),
    "",
    "| | |",
    "|---|---|",
    `| job | ${job.id}, attempt ${job.attempt} |`,
    `| profile | ${job.profile} |`,
    `| turns | ${run.turns} |`,
    `| cost | $${run.costUsd.toFixed(2)} |`,
    `| tokens | ${run.usage.inputTokens} read, ${run.usage.cacheReadTokens} from the cache, ${run.usage.outputTokens} written |`,
    "",
    `${count(run.changedFiles.length, "file")} changed`,
    "",
    ...files,
    "",
  ].join("\n");
}

export const hooks = {
  preJob(_job, config, _plan) {
    try {
      settings(config);
    } catch (error) {
      return { tag: "reject", val: `the hook's \`config\` in profile.yml does not fit: ${error.message}` };
    }
    return { tag: "proceed" };
  },

  postJob(job, text, run) {
    const config = settings(text);
    const annotations = [{ key: "report", value: line(run) }];
    const words = { title: null, body: config.pull_request ? body(job, run, config) : null };
    return { annotations, pullRequest: { tag: "amend", val: words } };
  },
};
