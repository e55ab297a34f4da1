// The API of the server that this page came from. The control token comes in the address's fragment, stays in
// sessionStorage, and is sent as bearer; it never travels in an address.

export interface Dialog {
  id: string;
  kind: 'permission' | 'question';
  text: string;
  options: (string | { id?: string; label?: string; text?: string })[];
}

export interface Session {
  id: string;
  agent: string;
  mode: string;
  state: string;
  reason: string;
  terminal: string | null;
  queued_prompts: number;
  dialog?: Dialog | null;
  spend?: { usd: string; budget_usd: string | null };
}

export interface State {
  state: string;
  reason: string;
  since: string;
  seq: number;
  phase: string;
  step?: string;
  error?: string;
  stalled: boolean;
  sessions: Session[];
  ports: number[];
  dialog?: Dialog | null;
}

export interface Port {
  port: number;
  http?: boolean | null;
  process?: { name?: string; command?: string } | null;
}

export interface PreviewLink {
  /** An address; where previews have none of their own, a path on the local proxy. */
  url: string;
  /** Then: the address for a browser on the machine of that proxy. */
  local_url?: string;
}

export interface TerminalInfo {
  id: string;
  kind: 'agent' | 'shell';
  state: 'running' | 'exited';
  exit: { code?: number; signal?: number } | null;
  title: string;
}

export interface Usage {
  input_tokens: number;
  cache_read_tokens: number;
  cache_write_5m_tokens: number;
  cache_write_1h_tokens: number;
  output_tokens: number;
}

export interface ToolResult {
  type: 'tool_result';
  call_id: string | null;
  text: string;
  failed: boolean | null;
  subagent?: string;
  omitted_bytes?: number;
}

export type Part =
  | { type: 'text' | 'thinking' | 'raw'; text: string; omitted_bytes?: number }
  | { type: 'tool_call'; call_id: string | null; name: string; input: unknown; omitted_bytes?: number }
  | ToolResult
  | { type: 'subagent'; id: string; call_id: string | null; name: string; state: string }
  | { type: 'attachment'; name: string }
  | { type: 'notice'; kind: string; text: string; omitted_bytes?: number };

export interface Turn {
  id: string;
  role: string;
  at: string | null;
  subagent?: string;
  model?: string;
  generation?: string;
  parts: Part[];
  usage?: Usage;
}

export interface Subagent {
  id: string;
  kind: string | null;
  description: string | null;
  call_id: string | null;
  bytes: number;
}

export interface ConversationPage {
  turns: Turn[];
  /** Where the next page begins. */
  next: string | null;
  more: boolean;
  reset: boolean;
  skipped_bytes?: number;
  subagents?: Subagent[];
}

/** What was found: a turn of a conversation, or a command of a shell. */
export interface Hit {
  kind: 'conversation' | 'shell';
  session: string;
  task?: string;
  agent: string | null;
  at: string | null;
  role: string | null;
  subagent?: string;
  snippet: string;
  /** Begin and end in characters. */
  highlights: [number, number][];
  exit: number | null;
  directory?: string;
}

export interface SearchAnswer {
  results: Hit[];
  total: number;
  complete: boolean;
}

/** An attached file, or why it is not there. */
export interface Attachment {
  name: string;
  path: string | null;
  error: string | null;
}

export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

const KEY = 'whim.token';

/** Takes the token out of the address, so that it is not in the history or in a shared link. */
export function takeToken(): string | null {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get('token');
  if (token) {
    sessionStorage.setItem(KEY, token);
    history.replaceState(null, '', location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY);
}

/** How long a preview that was opened from here may be looked at: a long day. */
const PREVIEW_S = 12 * 3600;

export class Api {
  constructor(private token: string) {}

  static remember(token: string): void {
    sessionStorage.setItem(KEY, token);
  }

  static forget(): void {
    sessionStorage.removeItem(KEY);
  }

  private async call(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { authorization: `Bearer ${this.token}` };
    const file = body instanceof Blob;
    if (body !== undefined) {
      headers['content-type'] = file ? 'application/octet-stream' : 'application/json';
    }
    const response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? null : file ? body : JSON.stringify(body),
      cache: 'no-store',
      credentials: 'omit',
      signal: signal ?? null,
    });
    if (!response.ok) {
      let detail = `${response.status} ${response.statusText}`;
      try {
        detail = ((await response.json()) as { detail?: string }).detail ?? detail;
      } catch {
        // Not every refusal has a document.
      }
      throw new ApiError(response.status, detail);
    }
    return response;
  }

  private async get<T>(path: string, signal?: AbortSignal): Promise<T> {
    return (await (await this.call('GET', path, undefined, signal)).json()) as T;
  }

  /** The state, or with `after` the next one that differs (at most 25 s later). */
  state(after: number | null, signal?: AbortSignal): Promise<State> {
    return this.get(after === null ? '/v1/state' : `/v1/state?after_seq=${after}&timeout_s=25`, signal);
  }

  async ports(): Promise<Port[]> {
    return this.get('/v1/ports');
  }

  /** A link that opens one port without any other credential. */
  async previewLink(port: number): Promise<PreviewLink> {
    return (await (await this.call('POST', `/v1/ports/${port}/links`, { expires_s: PREVIEW_S })).json()) as PreviewLink;
  }

  async terminals(): Promise<TerminalInfo[]> {
    return (await this.get<{ terminals: TerminalInfo[] }>('/v1/terminals')).terminals;
  }

  async openShell(): Promise<TerminalInfo> {
    return (await (await this.call('POST', '/v1/terminals', {})).json()) as TerminalInfo;
  }

  async closeTerminal(id: string): Promise<void> {
    await this.call('DELETE', `/v1/terminals/${encodeURIComponent(id)}`);
  }

  async prompt(session: string, text: string): Promise<void> {
    await this.call('POST', `/v1/sessions/${encodeURIComponent(session)}/prompts`, { text });
  }

  async interrupt(session: string): Promise<void> {
    await this.call('POST', `/v1/sessions/${encodeURIComponent(session)}/interrupt`);
  }

  async answer(session: string, dialog: string, option: string | number): Promise<void> {
    await this.call('POST', `/v1/sessions/${encodeURIComponent(session)}/answers`, { dialog, option });
  }

  /** A page of a session's conversation, or of a sub-agent's; `recent`: where it begins anew, only the end of a long one. */
  conversation(session: string, from: { after: string | null; subagent: string | null; recent: boolean }): Promise<ConversationPage> {
    const query = new URLSearchParams();
    if (from.after !== null) {
      query.set('after', from.after);
    }
    if (from.subagent !== null) {
      query.set('subagent', from.subagent);
    }
    if (from.recent) {
      query.set('recent', 'true');
    }
    return this.get(`/v1/sessions/${encodeURIComponent(session)}/conversation?${query}`);
  }

  /** Turns and commands of every session and shell, best first. */
  search(q: string, limit: number): Promise<SearchAnswer> {
    return this.get(`/v1/search?${new URLSearchParams({ q, limit: String(limit) })}`);
  }

  /** Sends a file whole. `tell`: the agent hears of it by a prompt. */
  async attach(file: File, tell: boolean): Promise<Attachment> {
    const query = new URLSearchParams({ name: file.name, tell: String(tell) });
    const answer = (await (await this.call('POST', `/v1/attachments?${query}`, file)).json()) as { attachments: Attachment[] };
    const [attached] = answer.attachments;
    if (!attached) {
      throw new ApiError(502, 'the answer names no file');
    }
    return attached;
  }

  async terminalToken(id: string): Promise<string> {
    return (await this.get<{ token: string }>(`/t/${encodeURIComponent(id)}/token`)).token;
  }
}
