// One terminal's connection: the `tty.v2` subprotocol, with reconnection that loses and repeats nothing.

export interface Size {
  columns: number;
  rows: number;
}

export interface Handlers {
  /** Output; `replay` when its queries must not be answered. */
  output(bytes: Uint8Array, replay: boolean): void;
  /** Forget everything shown and show this. */
  snapshot(bytes: Uint8Array, skipped: number): void;
  title(title: string): void;
  size(size: Size, own: boolean): void;
  exit(text: string): void;
  status(status: 'connecting' | 'open' | 'waiting' | 'over' | 'refused'): void;
  readOnly(readOnly: boolean): void;
}

const LEAST_WAIT = 250;
const MOST_WAIT = 15_000;
const CONNECT_WITHIN = 10_000;
/** Larger pastes travel in several messages. */
const CHUNK = 64 * 1024;
/** Input typed while disconnected, in bytes: more is refused, not silently dropped later. */
const MOST_HELD = 4096;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Connection {
  private socket: WebSocket | null = null;
  private offset: number | null = null;
  private liveFrom = 0;
  private attempt = 0;
  private timer: number | undefined;
  private over = false;
  private ready = false;
  private held: Uint8Array[] = [];
  private heldBytes = 0;
  /** Frames are handled strictly in order, also while a snapshot inflates. */
  private queue: Promise<void> = Promise.resolve();

  constructor(
    private readonly base: string,
    private readonly token: () => Promise<string>,
    private readonly wanted: () => Size,
    private readonly handlers: Handlers,
  ) {
    addEventListener('online', this.now);
    document.addEventListener('visibilitychange', this.now);
  }

  /** Tries at once instead of waiting on: the network or the person came back. */
  private readonly now = (): void => {
    if (this.timer !== undefined && document.visibilityState === 'visible') {
      this.attempt = 0;
      void this.connect();
    }
  };

  async connect(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.over || this.socket) {
      return;
    }
    this.handlers.status('connecting');
    let token: string;
    try {
      token = await this.token();
    } catch (error) {
      const status = (error as { status?: number }).status;
      if (status === 401 || status === 404) {
        this.over = true;
        this.handlers.status('refused');
        return;
      }
      this.retry();
      return;
    }
    const address = new URL(`${this.base}ws`, location.href);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    address.search = location.search;
    const socket = new WebSocket(address, ['tty.v2']);
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    const deadline = setTimeout(() => socket.close(), CONNECT_WITHIN);
    socket.onopen = () => {
      const hello = {
        AuthToken: token,
        ...this.wanted(),
        deflate: 'DecompressionStream' in window,
        ...(this.offset === null ? {} : { resume: this.offset }),
      };
      socket.send(JSON.stringify(hello));
    };
    socket.onmessage = (message: MessageEvent<ArrayBuffer>) => {
      clearTimeout(deadline);
      this.queue = this.queue.then(() => this.receive(new Uint8Array(message.data)));
    };
    socket.onclose = (event) => {
      clearTimeout(deadline);
      this.queue = this.queue.then(() => this.closed(event));
    };
  }

  private closed(event: CloseEvent): void {
    this.socket = null;
    this.ready = false;
    if (event.code === 1000) {
      this.over = true;
      this.handlers.exit(event.reason || 'ended');
      this.handlers.status('over');
    } else if (event.code === 1008 && event.reason.startsWith('the link')) {
      this.over = true;
      this.handlers.status('refused');
    } else if (!this.over) {
      this.retry();
    }
  }

  private retry(): void {
    this.handlers.status('waiting');
    const most = Math.min(MOST_WAIT, LEAST_WAIT * 2 ** this.attempt);
    this.attempt += 1;
    // Jitter: many pages must not come back in the same moment.
    this.timer = setTimeout(() => void this.connect(), most / 2 + Math.random() * (most / 2));
  }

  private async receive(message: Uint8Array): Promise<void> {
    const view = new DataView(message.buffer);
    switch (message[0]) {
      case 0x30: {
        const at = Number(view.getBigUint64(1));
        const bytes = message.subarray(9);
        this.offset = at + bytes.length;
        this.handlers.output(bytes, at < this.liveFrom);
        break;
      }
      case 0x31:
        this.handlers.title(decoder.decode(message.subarray(1)));
        break;
      case 0x32: {
        const size = JSON.parse(decoder.decode(message.subarray(1))) as Size & { own: boolean };
        this.handlers.size(size, size.own);
        break;
      }
      case 0x33: {
        const body = message.subarray(18);
        const bytes = message[17] === 1 ? await inflate(body) : body;
        this.offset = Number(view.getBigUint64(1));
        this.liveFrom = this.offset;
        this.handlers.snapshot(bytes, Number(view.getBigUint64(9)));
        break;
      }
      case 0x35: {
        const hello = JSON.parse(decoder.decode(message.subarray(1))) as { live_from: number; read_only: boolean };
        this.liveFrom = hello.live_from;
        this.attempt = 0;
        this.ready = true;
        this.handlers.readOnly(hello.read_only);
        this.handlers.status('open');
        this.sendHeld();
        break;
      }
      default:
      // Exit (4) comes again with the Close; unknown commands are of a newer server.
    }
  }

  private sendHeld(): void {
    const held = this.held;
    this.held = [];
    this.heldBytes = 0;
    held.forEach((bytes) => this.send(0x30, bytes));
  }

  private send(command: number, payload: Uint8Array = new Uint8Array()): void {
    const message = new Uint8Array(1 + payload.length);
    message[0] = command;
    message.set(payload, 1);
    this.socket?.send(message);
  }

  /** Types text. What is typed while disconnected is kept up to 4 kB; false when it was not taken. */
  type(text: string): boolean {
    return this.typeBytes(encoder.encode(text));
  }

  typeBytes(bytes: Uint8Array): boolean {
    if (this.over) {
      return false;
    }
    if (!this.ready) {
      if (this.heldBytes + bytes.length > MOST_HELD) {
        return false;
      }
      this.held.push(bytes);
      this.heldBytes += bytes.length;
      return true;
    }
    for (let at = 0; at < bytes.length; at += CHUNK) {
      this.send(0x30, bytes.subarray(at, at + CHUNK));
    }
    return true;
  }

  resize(size: Size): void {
    if (this.ready) {
      this.send(0x31, encoder.encode(JSON.stringify(size)));
    }
  }

  pause(paused: boolean): void {
    if (this.ready) {
      this.send(paused ? 0x32 : 0x33);
    }
  }

  takeOver(): void {
    if (this.ready) {
      this.send(0x34);
    }
  }

  dispose(): void {
    this.over = true;
    clearTimeout(this.timer);
    removeEventListener('online', this.now);
    document.removeEventListener('visibilitychange', this.now);
    this.socket?.close();
  }
}

async function inflate(bytes: Uint8Array): Promise<Uint8Array> {
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
