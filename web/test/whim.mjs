// A real whim with a page to drive, and the browser that drives it.
//
// The binaries come from the environment: WHIM, SCRIPTED_MODEL, AGENTS, the directory of the agents' CLIs, and SERVERS,
// that of the development servers. `cargo xtask test` builds and installs them.

import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

/** A busy machine does things slowly; nothing is asserted about how long they take. */
export const PATIENCE = 60_000;
const TOKEN = 'token-of-the-page-tests';

export function needed(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set; \`cargo xtask test\` sets it`);
  }
  return value;
}

/** Waits until `look` finds something. */
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) {
      return found;
    }
    if (Date.now() > deadline) {
      throw new Error(`waited in vain for ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A program whose output is kept, to be shown when a test fails. */
class Program {
  constructor(path, args, env) {
    this.output = '';
    this.child = spawn(path, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.ended = once(this.child, 'exit');
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.on('data', (data) => { this.output = (this.output + data).slice(-20_000); });
    }
  }

  async stop() {
    this.child.kill('SIGTERM');
    const [code, signal] = await this.ended;
    return code ?? signal;
  }
}

export class Whim {
  /** A whim whose agent is a shell. */
  static shell() {
    return Whim.start(['--agent', 'custom', '--agent-command', JSON.stringify(['bash', '--norc'])], { PS1: '$ ' });
  }

  /** A whim with Claude Code in front of a scripted model. */
  static async claude(script, ...args) {
    const directory = mkdtempSync(join(tmpdir(), 'whim-script-'));
    const path = join(directory, 'script.json');
    writeFileSync(path, JSON.stringify(script));
    const model = new Program(needed('SCRIPTED_MODEL'), ['--listen', '127.0.0.1:0', '--script', path], {});
    const address = await until('the scripted model', () => /127\.0\.0\.1:\d+/.exec(model.output)?.[0]);
    const whim = await Whim.start(['--agent', 'claude', ...args], {
      ANTHROPIC_API_KEY: 'scripted',
      WHIM_UPSTREAM_URL: `http://${address}`,
      PATH: `${needed('AGENTS')}:${process.env.PATH}`,
    });
    whim.also = async () => {
      await model.stop();
      rmSync(directory, { recursive: true });
    };
    return whim;
  }

  static async start(args, env) {
    const whim = new Whim();
    // The agents' user must be able to walk to it.
    whim.root = mkdtempSync(join(tmpdir(), 'whim-page-'));
    chmodSync(whim.root, 0o755);
    const ports = ['GENERATION', 'LOCAL', 'BACKUP', 'UI'].map((name) => [`WHIM_${name}_PORT`, '0']);
    whim.program = new Program(needed('WHIM'), ['run', '--root', whim.root, ...args], {
      ...Object.fromEntries(ports), ...env, WHIM_CONTROL_TOKEN: TOKEN,
    });
    whim.also = () => {};
    const ready = await until('readiness', () => whim.json('run/whim/ready.json'));
    whim.port = ready.ui.split(':').at(-1);
    whim.address = `http://127.0.0.1:${whim.port}/`;
    return whim;
  }

  /** A JSON file under the root, if it is there. */
  json(path) {
    try {
      return JSON.parse(readFileSync(join(this.root, path), 'utf8'));
    } catch {
      return null;
    }
  }

  async api(path, method = 'GET', body = undefined) {
    const response = await fetch(new URL(path, this.address), {
      method,
      headers: { authorization: `Bearer ${TOKEN}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok) {
      throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    }
    return response.status === 204 ? null : response.json();
  }

  /** Kills the supervisor; the keeper starts another. */
  killSupervisor() {
    const keeper = this.program.child.pid;
    const children = readFileSync(`/proc/${keeper}/task/${keeper}/children`, 'utf8').trim().split(' ');
    const supervisor = children.find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[1] === 'supervise');
    if (!supervisor) {
      throw new Error(`no supervisor among the children ${children}`);
    }
    process.kill(Number(supervisor), 'SIGKILL');
  }

  async stop() {
    const code = await this.program.stop();
    await this.also();
    rmSync(this.root, { recursive: true });
    return code;
  }
}

export const DESK = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };

export class Browser {
  static async start() {
    const browser = new Browser();
    // As root there is no sandbox of Chromium's own, and without a network nothing to call home to.
    browser.chromium = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    });
    return browser;
  }

  /** The page of a whim, in a window of its own, once its terminal shows something. */
  async open(whim, options = DESK, path = `#token=${TOKEN}`) {
    const context = await this.chromium.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    const view = new View(page);
    await page.goto(new URL(path, whim.address).href);
    await view.sees(/\S/);
    return view;
  }

  stop() {
    return this.chromium.close();
  }
}

/** One window with the page. */
export class View {
  constructor(page) {
    this.page = page;
    this.problems = [];
    this.hosts = new Set();
    page.on('pageerror', (error) => this.problems.push(String(error)));
    page.on('console', (message) => {
      // Of a refused request the browser says only that; the answer below says which.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) {
        this.problems.push(message.text());
      }
    });
    page.on('response', async (response) => {
      if (response.status() >= 400) {
        const at = this.problems.push(`${response.status()} ${new URL(response.url()).pathname}`) - 1;
        this.problems[at] += `: ${await response.text()}`;
      }
    });
    page.on('request', (request) => this.hosts.add(new URL(request.url()).host));
  }

  /** Every line of the shown terminal, its scrollback included. */
  lines() {
    return this.page.evaluate(() => {
      const buffer = window.whim.term?.buffer.active;
      return Array.from({ length: buffer?.length ?? 0 }, (_, at) => buffer.getLine(at).translateToString(true));
    });
  }

  /** Waits until a line of the terminal is as wanted. */
  async sees(wanted) {
    const handle = await this.page.waitForFunction(({ source, flags }) => {
      const buffer = window.whim?.term?.buffer.active;
      const expression = new RegExp(source, flags);
      for (let at = (buffer?.length ?? 0) - 1; at >= 0; at--) {
        const line = buffer.getLine(at).translateToString(true);
        if (expression.test(line)) {
          return line;
        }
      }
      return null;
    }, { source: wanted.source, flags: wanted.flags }).catch(async (error) => {
      throw new Error(`waited in vain for ${wanted} in:\n${(await this.lines()).slice(-50).join('\n')}`, { cause: error });
    });
    return handle.jsonValue();
  }

  type(text) {
    return this.page.keyboard.type(text);
  }

  /** Gives the terminal the keys. */
  focus() {
    return this.page.getByRole('textbox', { name: 'Terminal input' }).focus();
  }

  size() {
    return this.page.evaluate(() => `${window.whim.term.cols}x${window.whim.term.rows}`);
  }

  close() {
    return this.page.context().close();
  }
}
