// The same session as a conversation, with search. What was said stands open; thinking, tools and what the agent's program
// adds are folded. Everything comes as text and is shown as text.

import type { Api, ConversationPage, Part, Subagent, ToolResult, Usage } from './api';
import { h, setText } from './dom';
import { Search } from './search';
import { Entry, inputText, startedBy, summary, Thread } from './thread';

/** Entries in the document at once; older ones come with a button. */
const SHOWN = 400;

const WHO: Record<string, string> = {
  user: 'User', assistant: 'Agent', tool: 'Tool', system: 'System', record: 'Record', unknown: 'Unknown record',
};

/** One transcript: what is known of it, and how to get what is newer. */
class Source {
  thread = new Thread();
  subagents: Subagent[] = [];
  /** Bytes of the transcript that come before the first entry. */
  skipped = 0;
  private next: string | null = null;

  constructor(private readonly api: Api, readonly session: string, readonly subagent: string | null) {}

  /** Gets what is new. Returns the entries that changed; `null`: what was known is void. */
  async update(recent: boolean): Promise<Entry[] | null> {
    const changed: Entry[] = [];
    let reset = false;
    for (let more = true; more;) {
      const page: ConversationPage = await this.api.conversation(this.session, {
        after: this.next, subagent: this.subagent, recent,
      });
      if (page.reset) {
        this.thread = new Thread();
        reset = true;
      }
      if (this.next === null || page.reset) {
        this.skipped = page.skipped_bytes ?? 0;
      }
      this.subagents = page.subagents ?? [];
      for (const turn of page.turns) {
        changed.push(...this.thread.add(turn));
      }
      // A page that stands still would be asked for again and again.
      more = page.more && page.next !== this.next;
      this.next = page.next;
    }
    return reset ? null : changed;
  }
}

export class Conversation {
  readonly element: HTMLElement;
  private readonly list = h('ol', { class: 'turns' });
  private readonly count = h('span', { class: 'count', role: 'status' });
  private readonly query = h('input', { type: 'search', placeholder: 'Search the conversation', 'aria-label': 'Search the conversation' });
  private readonly earlier = h('button', { type: 'button', class: 'quiet', onclick: () => void this.showEarlier() });
  private readonly search: Search;
  private readonly everywhere = h('button', { type: 'button', class: 'quiet', onclick: () => this.findEverywhere() }, 'Search everywhere');
  private readonly nodes = new Map<Entry, HTMLElement>();
  /** Older entries that are not in the document. */
  private dropped = new WeakSet<Entry>();
  private readonly inner = new Map<string, Source>();
  private source: Source | null = null;
  private shown = SHOWN;
  private whole = false;
  private running: Promise<void> | null = null;
  private again = false;

  constructor(private readonly api: Api) {
    this.search = new Search(api);
    this.element = h('section', { class: 'conversation', role: 'tabpanel', id: 'panel-conversation', 'aria-label': 'Conversation', tabindex: '0' },
      h('div', { class: 'search-row' }, this.query, this.everywhere, this.count), this.search.element, h('p', { class: 'earlier' }, this.earlier), this.list);
    this.query.addEventListener('input', () => {
      this.search.close();
      this.render();
    });
    this.query.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') {
        this.findEverywhere();
      }
    });
    this.earlier.hidden = true;
  }

  /** Gets what is new of a session; calls while one is under way become one more. */
  refresh(session: string): Promise<void> {
    if (this.source?.session !== session) {
      this.source = new Source(this.api, session, null);
      this.inner.clear();
      this.whole = false;
      this.shown = SHOWN;
      this.render();
    }
    if (this.running) {
      this.again = true;
      return this.running;
    }
    this.running = this.update().finally(() => { this.running = null; });
    return this.running;
  }

  private async update(): Promise<void> {
    do {
      this.again = false;
      const source = this.source;
      if (!source) {
        return;
      }
      const before = new Map(source.subagents.map((subagent) => [subagent.id, subagent.bytes]));
      const changed = await source.update(!this.whole);
      if (source !== this.source) {
        this.again = true;
        continue;
      }
      const grown = source.subagents.filter((subagent) => before.get(subagent.id) !== subagent.bytes);
      if (changed === null) {
        this.inner.clear();
      }
      if (changed === null || this.query.value.trim()) {
        this.render();
      } else {
        const callers = grown.map((subagent) => subagent.call_id ? source.thread.caller(subagent.call_id) : undefined);
        this.show(new Set([...changed, ...callers.filter((entry) => entry !== undefined)]));
      }
    } while (this.again);
  }

  /** Puts changed entries where they belong, and leaves everything else as it is. */
  private show(changed: Set<Entry>): void {
    const atEnd = this.element.scrollTop + this.element.clientHeight >= this.element.scrollHeight - 40;
    for (const entry of changed) {
      const old = this.nodes.get(entry);
      if (this.dropped.has(entry)) {
        continue;
      }
      const fresh = this.entry(entry, '');
      if (old) {
        // What was opened stays open.
        const open = new Set([...old.querySelectorAll<HTMLElement>('details[open]')].map((details) => details.dataset.key));
        fresh.querySelectorAll('details').forEach((details) => { details.open ||= open.has(details.dataset.key); });
        old.replaceWith(fresh);
      } else {
        this.list.insertBefore(fresh, this.following(entry));
      }
      this.nodes.set(entry, fresh);
    }
    // Who reads further up keeps what is there; who follows does not collect it for days.
    for (const [entry, node] of this.nodes) {
      if (this.nodes.size <= this.shown || !atEnd) {
        break;
      }
      node.remove();
      this.nodes.delete(entry);
      this.dropped.add(entry);
    }
    this.note();
    if (atEnd && changed.size > 0) {
      this.element.scrollTop = this.element.scrollHeight;
    }
  }

  /** The node that an entry comes before; `null`: it is the last. */
  private following(entry: Entry): HTMLElement | null {
    const entries = this.source?.thread.entries ?? [];
    for (let at = entries.lastIndexOf(entry) + 1; at < entries.length; at += 1) {
      const next = entries[at];
      const node = next && this.nodes.get(next);
      if (node) {
        return node;
      }
    }
    return null;
  }

  private findEverywhere(): void {
    const query = this.query.value.trim();
    if (query) {
      void this.search.find(query);
    } else {
      this.query.focus();
    }
  }

  /** Everything anew: another search, another session, more entries. */
  private render(): void {
    const wanted = this.query.value.trim().toLowerCase();
    const atEnd = this.element.scrollTop + this.element.clientHeight >= this.element.scrollHeight - 40;
    const entries = (this.source?.thread.entries ?? []).filter((entry) => !wanted || entry.text.includes(wanted));
    this.nodes.clear();
    this.dropped = new WeakSet(entries.slice(0, -this.shown));
    this.list.replaceChildren(...entries.slice(-this.shown).map((entry) => {
      const node = this.entry(entry, wanted);
      this.nodes.set(entry, node);
      return node;
    }));
    setText(this.count, wanted ? `${entries.length} found` : '');
    this.note();
    if (atEnd && !wanted) {
      this.element.scrollTop = this.element.scrollHeight;
    }
  }

  private note(): void {
    const hidden = (this.source?.thread.entries.length ?? 0) > this.shown;
    const skipped = this.source?.skipped ?? 0;
    this.earlier.hidden = !(hidden || skipped > 0);
    setText(this.earlier, hidden ? 'Show earlier' : `Load all (${(skipped / 1e6).toFixed(1)} MB earlier)`);
  }

  private async showEarlier(): Promise<void> {
    const source = this.source;
    if (!source) {
      return;
    }
    if (source.thread.entries.length > this.shown) {
      this.shown += SHOWN;
      this.render();
      return;
    }
    this.whole = true;
    this.source = new Source(this.api, source.session, null);
    await this.refresh(source.session);
    this.render();
  }

  private entry(entry: Entry, wanted: string): HTMLElement {
    const { turn } = entry;
    const subagents = startedBy(this.source?.subagents ?? [], entry);
    const time = turn.at ? h('time', { datetime: turn.at, title: new Date(turn.at).toLocaleString() }, new Date(turn.at).toLocaleTimeString()) : null;
    // What a search found stands alone and says who said it.
    const follows = entry.follows && !wanted;
    const who = turn.subagent && turn.role === 'user' ? 'Task' : (WHO[turn.role] ?? turn.role);
    return h('li', { class: `turn from-${turn.role}${follows ? ' follows' : ''}`, 'data-id': turn.id },
      h('div', { class: 'who' }, ...(follows ? [] : [h('span', { class: 'role' }, who), turn.subagent ? h('span', { class: 'tag' }, 'sub-agent') : null, time]),
        entry.usage ? tokens(entry.usage, turn.model) : null),
      ...turn.parts.map((part, at) => this.part(part, `${turn.id}/${at}`, turn.role, entry, subagents, wanted)));
  }

  private part(part: Part, key: string, role: string, entry: Entry, subagents: Map<string, Subagent>, wanted: string): Node {
    switch (part.type) {
      case 'text':
        return role === 'system'
          ? folded(key, ['Instructions ', h('span', { class: 'gist' }, part.text.slice(0, 120))], wanted, part.text, part.omitted_bytes)
          : h('div', { class: 'text' }, ...marked(part.text, wanted), left(part.omitted_bytes));
      case 'thinking':
        return part.text ? folded(key, ['Thinking'], wanted, part.text, part.omitted_bytes) : h('div', { class: 'dim' }, 'Thinking (not shown by the provider)');
      case 'tool_call':
        return this.call(part, key, entry, subagents, wanted);
      case 'tool_result':
        return folded(key, [part.failed ? 'Result (failed)' : 'Result'], wanted, part.text, part.omitted_bytes);
      case 'subagent':
        return h('div', { class: 'notice-line' }, `sub-agent ${part.state}: `, ...marked(part.name, wanted));
      case 'attachment':
        return h('div', { class: 'dim' }, 'Attachment: ', ...marked(part.name, wanted));
      case 'notice':
        return part.text.length > 200
          ? folded(key, [part.kind], wanted, part.text, part.omitted_bytes)
          : h('div', { class: part.kind === 'error' ? 'notice-line bad' : 'notice-line' }, `${part.kind}${part.text ? ': ' : ''}`, ...marked(part.text, wanted));
      default:
        return folded(key, ['Record'], wanted, part.text, part.omitted_bytes);
    }
  }

  /** A tool with what it was given and what it gave. */
  private call(part: Extract<Part, { type: 'tool_call' }>, key: string, entry: Entry, subagents: Map<string, Subagent>, wanted: string): HTMLElement {
    const result: ToolResult | undefined = part.call_id ? entry.results.get(part.call_id) : undefined;
    const subagent = part.call_id ? subagents.get(part.call_id) : undefined;
    const input = inputText(part.input);
    const hit = wanted !== '' && `${part.name}\n${input}\n${result?.text ?? ''}`.toLowerCase().includes(wanted);
    return h('details', { class: 'tool', 'data-key': key, open: hit },
      h('summary', {}, h('strong', {}, ...marked(part.name, wanted)), ' ', h('span', { class: 'gist' }, ...marked(summary(part.input), wanted)),
        result?.failed ? h('span', { class: 'tag bad' }, 'failed') : null, result ? null : h('span', { class: 'tag' }, 'no result yet')),
      h('pre', {}, ...marked(input, wanted), left(part.omitted_bytes)),
      result ? h('div', { class: 'result' }, h('div', { class: 'dim' }, 'Result'), h('pre', {}, ...marked(result.text, wanted), left(result.omitted_bytes))) : null,
      subagent ? this.nested(subagent, `${key}/sub`) : null);
  }

  /** A sub-agent's own conversation: fetched when it is opened. */
  private nested(subagent: Subagent, key: string): HTMLElement {
    const list = h('ol', { class: 'turns nested' });
    const name = [subagent.kind, subagent.description].filter(Boolean).join(': ') || subagent.id;
    const details = h('details', { class: 'subagent', 'data-key': key }, h('summary', {}, 'Sub-agent ', h('span', { class: 'gist' }, name)), list);
    const load = async (): Promise<void> => {
      const session = this.source?.session;
      if (!session) {
        return;
      }
      let inner = this.inner.get(subagent.id);
      if (!inner) {
        inner = new Source(this.api, session, subagent.id);
        this.inner.set(subagent.id, inner);
      }
      try {
        await inner.update(true);
        list.replaceChildren(...inner.thread.entries.slice(-SHOWN).map((entry) => this.entry(entry, '')));
      } catch (error) {
        list.replaceChildren(h('li', { class: 'dim', role: 'alert' }, (error as Error).message));
      }
    };
    details.addEventListener('toggle', () => { if (details.open) { void load(); } });
    return details;
  }
}

/** Folded text, open where the search finds something in it. */
function folded(key: string, title: (Node | string)[], wanted: string, text: string, omitted: number | undefined): HTMLElement {
  const hit = wanted !== '' && text.toLowerCase().includes(wanted);
  return h('details', { 'data-key': key, open: hit }, h('summary', {}, ...title), h('pre', {}, ...marked(text, wanted), left(omitted)));
}

function left(omitted: number | undefined): Node | null {
  return omitted ? h('span', { class: 'dim' }, `\n[${omitted} bytes left out]`) : null;
}

function tokens(usage: Usage, model: string | undefined): HTMLElement {
  const written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens;
  const prompt = usage.input_tokens + usage.cache_read_tokens + written;
  const short = (count: number): string => (count >= 1000 ? `${(count / 1000).toFixed(1)}k` : String(count));
  const title = `${model ? `${model}: ` : ''}${usage.input_tokens} new, ${usage.cache_read_tokens} from and ${written} into the cache, ${usage.output_tokens} out`;
  return h('span', { class: 'tokens', title }, `${short(prompt)} in · ${short(usage.output_tokens)} out`);
}

function marked(text: string, wanted: string): (Node | string)[] {
  if (!wanted) {
    return [text];
  }
  const parts: (Node | string)[] = [];
  const lower = text.toLowerCase();
  let at = 0;
  for (let hit = lower.indexOf(wanted); hit >= 0; hit = lower.indexOf(wanted, at)) {
    parts.push(text.slice(at, hit), h('mark', {}, text.slice(hit, hit + wanted.length)));
    at = hit + wanted.length;
  }
  parts.push(text.slice(at));
  return parts;
}
