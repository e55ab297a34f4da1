// A conversation's turns as a person reads them: a tool's result belongs to its call, tokens to what they brought.

import type { Part, Subagent, ToolResult, Turn, Usage } from './api';

/** What is shown as one entry: a turn, and what came later and belongs to it. */
export class Entry {
  /** Results of its calls, by the call's id. */
  readonly results = new Map<string, ToolResult>();
  /** Sub-agents that its calls started, as the transcript tells, by the call's id. */
  readonly subagents = new Map<string, Subagent>();
  usage: Usage | null = null;
  private searched: string | null = null;

  /** `follows`: it is a further record of the answer before it. */
  constructor(readonly turn: Turn, readonly follows: boolean) {}

  /** Everything in it that can be searched for, in lower case. */
  get text(): string {
    this.searched ??= [...this.turn.parts, ...this.results.values()].map(textOf).join('\n').toLowerCase();
    return this.searched;
  }

  /** Something was added. */
  touch(): void {
    this.searched = null;
  }
}

export function textOf(part: Part): string {
  switch (part.type) {
    case 'tool_call':
      return `${part.name}\n${inputText(part.input)}`;
    case 'attachment':
    case 'subagent':
      return part.name;
    case 'notice':
      return `${part.kind}\n${part.text}`;
    default:
      return part.text;
  }
}

export function inputText(input: unknown): string {
  return typeof input === 'string' ? input : JSON.stringify(input, null, 2);
}

/** The one line that tells a call from others: its command, its file, or what else it was given first. */
export function summary(input: unknown): string {
  if (typeof input === 'string') {
    return input.slice(0, 200);
  }
  if (typeof input !== 'object' || input === null) {
    return '';
  }
  const members = input as Record<string, unknown>;
  const telling = ['command', 'cmd', 'file_path', 'path', 'pattern', 'url', 'query', 'description', 'prompt'];
  const known = telling.map((name) => members[name]).find((value) => typeof value === 'string');
  const first = known ?? Object.values(members).find((value) => typeof value === 'string' || Array.isArray(value));
  const text = Array.isArray(first) ? first.join(' ') : String(first ?? '');
  return text.slice(0, 200).replaceAll(/\s+/g, ' ');
}

/** Milliseconds by which a record may be written too late; what lies further apart comes from a clock that was set. */
const LATE = 10_000;

/** The entries of one transcript, as its turns come. */
export class Thread {
  readonly entries: Entry[] = [];
  private readonly calls = new Map<string, Entry>();
  private readonly usages = new Map<string, Usage>();
  /** The first entry of each model call, and of the last one where calls have no names. */
  private readonly firstOf = new Map<string, Entry>();
  private head: Entry | null = null;

  /** Takes a turn in. Returns the entries that are new or look different now. */
  add(turn: Turn): Entry[] {
    const changed: Entry[] = [];
    // Results find their calls; what is left of the turn stands for itself.
    const own = turn.parts.filter((part) => {
      const caller = part.type === 'subagent' && part.call_id ? this.calls.get(part.call_id) : undefined;
      if (part.type === 'subagent' && part.call_id && caller) {
        caller.subagents.set(part.call_id, { id: part.id, kind: null, description: part.name, call_id: part.call_id, bytes: 0 });
        changed.push(caller);
        return false;
      }
      const call = part.type === 'tool_result' && part.call_id ? this.calls.get(part.call_id) : undefined;
      if (part.type !== 'tool_result' || !call || !part.call_id) {
        return true;
      }
      call.results.set(part.call_id, part);
      call.touch();
      changed.push(call);
      return false;
    });
    if (own.length === 0) {
      return [...changed, ...this.count(turn)];
    }
    const place = this.placeOf(turn);
    const before = this.entries[place - 1]?.turn;
    const last = place === this.entries.length;
    const follows = last && this.head !== null && before?.role === 'assistant' && turn.role === 'assistant'
      && before.generation === turn.generation && before.subagent === turn.subagent;
    const entry = new Entry({ ...turn, parts: own }, follows);
    for (const part of own) {
      if (part.type === 'tool_call' && part.call_id) {
        this.calls.set(part.call_id, entry);
      }
    }
    this.entries.splice(place, 0, entry);
    return [...changed, entry, ...this.count(turn, entry)];
  }

  /** Where a turn belongs. Claude Code writes the records of one moment in any order (2.1.197). */
  private placeOf(turn: Turn): number {
    const at = turn.at === null ? NaN : Date.parse(turn.at);
    let place = this.entries.length;
    for (; place > 0; place -= 1) {
      const earlier = this.entries[place - 1]?.turn.at;
      const early = earlier ? Date.parse(earlier) - at : NaN;
      if (!(early > 0 && early <= LATE)) {
        break;
      }
    }
    return place;
  }

  /** The entry whose call this is. */
  caller(call: string): Entry | undefined {
    return this.calls.get(call);
  }

  /** Tokens stand at the first entry of their model call; a record that brings only tokens ends the call before it. */
  private count(turn: Turn, entry?: Entry): Entry[] {
    const { generation, usage } = turn;
    if (entry && turn.role === 'assistant' && !entry.follows) {
      this.head = entry;
    }
    if (!generation) {
      const head = this.head;
      if (!usage || !head) {
        return [];
      }
      head.usage = usage;
      if (!entry) {
        this.head = null;
      }
      return [head];
    }
    if (usage) {
      this.usages.set(generation, usage);
    }
    if (entry && !this.firstOf.has(generation)) {
      this.firstOf.set(generation, entry);
    }
    const first = this.firstOf.get(generation);
    const known = this.usages.get(generation);
    if (first && known) {
      first.usage = known;
      return [first];
    }
    // Codex names a call only where it counts its tokens.
    if (!entry && usage && this.head && !this.head.turn.generation) {
      const head = this.head;
      head.usage = usage;
      this.head = null;
      return [head];
    }
    return [];
  }
}

/** Sub-agents by the call that started them. */
export function startedBy(subagents: Subagent[], entry: Entry): Map<string, Subagent> {
  const found = new Map<string, Subagent>();
  for (const part of entry.turn.parts) {
    if (part.type !== 'tool_call' || !part.call_id) {
      continue;
    }
    const id = entry.results.get(part.call_id)?.subagent;
    const told = entry.subagents.get(part.call_id);
    const known = told ?? subagents.find((subagent) => subagent.id === id || (subagent.call_id && subagent.call_id === part.call_id));
    if (known) {
      found.set(part.call_id, known);
    } else if (id) {
      found.set(part.call_id, { id, kind: null, description: null, call_id: part.call_id, bytes: 0 });
    }
  }
  return found;
}
