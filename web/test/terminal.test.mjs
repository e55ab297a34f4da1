// The page's terminals, in Chromium, on a real whim with real shells.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Browser, PHONE, until, Whim } from './whim.mjs';

let browser;
let whim;
const views = [];

before(async () => {
  whim = await Whim.shell();
  browser = await Browser.start();
});

after(async () => {
  const [code] = await Promise.all([whim?.stop(), browser?.stop()]);
  assert.equal(code, 0, whim?.program.output);
});

afterEach(async () => {
  for (const view of views.splice(0)) {
    assert.deepEqual(view.problems, [], 'nothing on the browser’s console');
    await view.close();
  }
});

async function open(options, path) {
  const view = await browser.open(whim, options, path);
  views.push(view);
  return view;
}

test('asks no other host, is small, and runs under a strict policy', async () => {
  const bodies = [];
  const view = await open();
  view.page.on('response', (response) => bodies.push(response));
  const response = await view.page.reload();
  await view.sees(/\S/);
  assert.deepEqual([...view.hosts], [new URL(whim.address).host]);
  const policy = response.headers()['content-security-policy'];
  assert.match(policy, /default-src 'none'|default-src 'self'/);
  assert.doesNotMatch(policy, /script-src[^;]*'unsafe/);
  const files = await Promise.all(bodies.filter((one) => !new URL(one.url()).pathname.startsWith('/v1/') && one.ok()).map((one) => one.body()));
  const size = files.reduce((sum, body) => sum + gzipSync(body).length, 0);
  assert.ok(size > 10_000 && size <= 600_000, `${size} bytes gzipped`);
});

test('shows what is typed, and finds it again', async () => {
  const view = await open();
  await view.type('echo he""llo-there\r');
  await view.sees(/^hello-there$/);
  await view.page.keyboard.press('Control+Shift+F');
  await view.page.getByRole('searchbox', { name: 'Find in terminal' }).fill('hello-there');
  await view.page.waitForFunction(() => window.whim.term.getSelection() === 'hello-there');
});

test('takes a file that is dropped, and names it where the person types', async () => {
  const view = await open();
  await view.type('clear; file=');
  const drop = async (name, text) => {
    const data = await view.page.evaluateHandle(([called, content]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([content], called));
      return transfer;
    }, [name, text]);
    await view.page.dispatchEvent('main.stage', 'drop', { dataTransfer: data });
  };
  await drop('my note.txt', 'dropped here');
  await view.sees(/01-my-note\.txt/);
  await view.type('; cat $file | tr a-z A-Z; echo\r');
  await view.sees(/^DROPPED HERE/);
  // One that is not taken is told, and nothing is typed.
  await drop('setup.exe', 'x');
  await view.page.getByText('programs are not taken').waitFor();
  const { attachments } = await whim.api('/v1/attachments');
  assert.deepEqual(attachments.map(({ name, word }) => [name, word]), [['01-my-note.txt', null], ['setup.exe', 'executable']]);
});

test('comes back by itself after the server crashed, with nothing lost and nothing twice', async () => {
  const view = await open();
  await view.type('clear; for i in $(seq 1 4000); do echo "number $i"; [ $((i % 100)) = 0 ] && sleep 0.05; done; echo do""ne\r');
  await view.sees(/^number 500$/);
  whim.killSupervisor();
  await view.sees(/^done$/);
  const numbers = (await view.lines()).flatMap((line) => /^number (\d+)$/.exec(line)?.[1] ?? []).map(Number);
  assert.deepEqual(numbers, Array.from({ length: 4000 }, (_, at) => at + 1));
  // The browser tells of the cut connection itself.
  view.problems = view.problems.filter((problem) => !/WebSocket|ERR_/.test(problem));
});

test('keeps the scrollback for who comes later', async () => {
  const view = await open();
  await view.type('clear; seq 1 3000 | sed "s/^/row /"; echo en""d\r');
  await view.sees(/^end$/);
  const late = await open();
  await late.sees(/^end$/);
  const rows = (await late.lines()).flatMap((line) => /^row (\d+)$/.exec(line)?.[1] ?? []).map(Number);
  assert.deepEqual(rows, Array.from({ length: 3000 }, (_, at) => at + 1));
});

test('the size is whose who types, and can be taken over', async () => {
  const desk = await open();
  await desk.type('clear; echo fr""om the desk\r');
  await desk.sees(/^from the desk$/);
  const wide = await desk.size();
  const phone = await open(PHONE);
  await phone.sees(/^from the desk$/);
  await until('the desk’s size on the phone', async () => (await phone.size()) === wide);
  const take = phone.page.getByRole('button', { name: 'Use this window’s size' });
  await take.tap();
  await until('the phone’s size on the desk', async () => {
    const size = await desk.size();
    return size !== wide && size === (await phone.size());
  });
  await take.waitFor({ state: 'hidden' });
});

test('a phone has the keys that its keyboard lacks, and no sideways scrolling', async () => {
  const phone = await open(PHONE);
  await phone.page.getByRole('button', { name: 'Control C' }).tap();
  await phone.type('sleep 1000');
  await phone.page.getByRole('button', { name: 'Enter' }).tap();
  await phone.sees(/sleep 1000/);
  await phone.page.getByRole('button', { name: 'Control C' }).tap();
  await phone.sees(/\^C/);
  const [inner, scroll] = await phone.page.evaluate(() => [innerWidth, document.documentElement.scrollWidth]);
  assert.ok(scroll <= inner, `${scroll} wide in a window of ${inner}`);
});

test('a paste of a megabyte arrives byte for byte', async () => {
  const view = await open();
  await view.type('clear; stty raw -echo; echo re""ady; head -c 1000000 | md5sum; stty sane\r');
  await view.sees(/ready/);
  const paste = 'abcdefghi\n'.repeat(100_000);
  // xterm.js turns the line feeds of a paste into carriage returns, as terminals do.
  const sum = createHash('md5').update(paste.replaceAll('\n', '\r')).digest('hex');
  await view.page.evaluate((text) => window.whim.term.paste(text), paste);
  await view.sees(new RegExp(sum));
  await view.type('\r');
});

test('a program asks before it writes to the clipboard', async () => {
  const view = await open();
  const copied = Buffer.from('from a program').toString('base64');
  await view.type(`printf '\\033]52;c;${copied}\\007'\r`);
  const question = view.page.getByRole('dialog');
  await question.getByText('from a program').waitFor();
  await question.getByRole('button', { name: 'Cancel' }).click();
  await question.waitFor({ state: 'hidden' });
});

test('what a program asks takes no other question’s place', async () => {
  const view = await open();
  await view.page.getByRole('button', { name: 'Open a shell' }).click();
  const close = view.page.getByRole('button', { name: /^Close shell-/ });
  const name = (await close.getAttribute('aria-label')).replace('Close ', '');
  await view.sees(/\S/);
  const copied = Buffer.from('asked meanwhile').toString('base64');
  const go = join(whim.root, 'go');
  await view.type(`until [ -e ${go} ]; do sleep 0.05; done; printf '\\033]52;c;${copied}\\007'; echo as""ked\r`);
  await close.click();
  const question = view.page.getByRole('dialog');
  await question.getByText(`Close ${name}?`).waitFor();
  writeFileSync(go, '');
  await view.sees(/^asked/);
  assert.match(await question.textContent(), /^Close /);
  await question.getByRole('button', { name: 'Allow' }).click();
  await question.waitFor({ state: 'hidden' });
  await until('the shell to be gone', async () => (await close.count()) === 0);
});

test('shells are opened and closed', async () => {
  const view = await open();
  await view.page.getByRole('button', { name: 'Open a shell' }).click();
  const tabs = view.page.getByRole('tab');
  await until('a second tab', async () => (await tabs.count()) === 2);
  const name = await tabs.nth(1).getAttribute('data-id');
  await view.type('echo in""side\r');
  await view.sees(/^inside$/);
  await view.page.getByRole('button', { name: `Close ${name}` }).click();
  await view.page.getByRole('button', { name: 'Allow' }).click();
  await until('one tab', async () => (await tabs.count()) === 1);
  const { terminals } = await whim.api('/v1/terminals');
  assert.deepEqual(terminals.filter((one) => one.state === 'running').map((one) => one.id), ['main']);
});

test('a shell’s prompts can be jumped to, and a failure is marked', async () => {
  const view = await open();
  await view.page.getByRole('button', { name: 'Open a shell' }).click();
  await until('a second tab', async () => (await view.page.getByRole('tab').count()) === 2);
  // The first prompt is on the screen that the page begins with, which has no marks.
  const prompts = (count) => view.page.waitForFunction((wanted) => {
    const buffer = window.whim.term.buffer.active;
    const line = (at) => buffer.getLine(at)?.translateToString(true) ?? '';
    return Array.from({ length: wanted }, (_, at) => line(at)).every((text) => /[$#%]\s*$/.test(text));
  }, count);
  await prompts(1);
  await view.type('\r');
  await prompts(2);
  await view.type('seq 1 300; (exit 3)\r');
  await view.sees(/^300$/);
  await view.type('echo af""ter\r');
  await view.sees(/^after$/);
  await view.page.keyboard.press('Control+Shift+ArrowUp');
  await view.page.keyboard.press('Control+Shift+ArrowUp');
  await view.page.waitForFunction(() => {
    const buffer = window.whim.term.buffer.active;
    return /seq 1 300/.test(buffer.getLine(buffer.viewportY).translateToString(true));
  });
  await view.page.locator('.failed-command[title="Exit status 3"]').waitFor({ state: 'visible' });
  await view.page.keyboard.press('Control+Shift+ArrowDown');
  await view.page.keyboard.press('Control+Shift+ArrowDown');
  await view.page.waitForFunction(() => {
    const buffer = window.whim.term.buffer.active;
    return buffer.viewportY === buffer.baseY;
  });
  const name = await view.page.getByRole('tab').nth(1).getAttribute('data-id');
  await whim.api(`/v1/terminals/${name}`, 'DELETE');
});

test('themes: the system’s, and one’s own choice that stays', async () => {
  const view = await open({ viewport: { width: 1000, height: 700 }, colorScheme: 'light' });
  const background = () => view.page.evaluate(() => window.whim.term.options.theme.background);
  const light = await background();
  await view.page.emulateMedia({ colorScheme: 'dark' });
  await until('dark', async () => (await background()) !== light);
  const dark = await background();
  await view.page.getByRole('button', { name: 'Settings' }).click();
  await view.page.getByLabel('Theme').selectOption('dracula');
  await until('Dracula', async () => (await background()) === '#282a36');
  assert.notEqual(dark, '#282a36');
  await view.page.reload();
  await view.sees(/\S/);
  assert.equal(await background(), '#282a36');
});

test('a read-only link shows and takes nothing', async () => {
  const { path } = await whim.api('/v1/terminals/main/links', 'POST', { read_only: true, expires_s: 600 });
  const owner = await open();
  const guest = await open(undefined, path);
  await guest.page.evaluate(() => window.whim.term.focus());
  await guest.type('echo gu""est was here\r');
  await guest.page.evaluate(() => window.whim.term.paste('echo pas""ted\r'));
  await owner.type('clear; echo ow""ner\r');
  await guest.sees(/^owner$/);
  assert.doesNotMatch((await owner.lines()).join('\n'), /guest was here|pasted/);
});

test('without its token the page asks for it', async () => {
  const context = await browser.chromium.newContext();
  const page = await context.newPage();
  await page.goto(whim.address);
  await page.getByLabel('Control token').fill('wrong');
  await page.getByRole('button', { name: 'Open' }).click();
  await page.getByText('That token was not accepted.').waitFor();
  await context.close();
});
