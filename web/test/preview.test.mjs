// Previews of real development servers, opened from the page: an edit shows without a reload.

import assert from 'node:assert/strict';
import { chownSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { Browser, needed, PATIENCE, until, Whim } from './whim.mjs';

let browser;
let whim;
let view;

before(async () => {
  whim = await Whim.shell();
  browser = await Browser.start();
  view = await browser.open(whim);
});

after(async () => {
  const [code] = await Promise.all([whim?.stop(), browser?.stop()]);
  assert.equal(code, 0, whim?.program.output);
  assert.deepEqual(view?.problems, [], 'nothing on the browser’s console');
});

/** A project of the agents' user, where it finds its framework. */
class Project {
  constructor(files) {
    this.user = statSync(join(whim.root, 'home/node'));
    this.path = mkdtempSync(join(needed('SERVERS'), 'preview-'));
    this.own(this.path);
    for (const [name, text] of Object.entries(files)) {
      this.write(name, text);
    }
  }

  own(path) {
    chownSync(path, this.user.uid, this.user.gid);
  }

  write(name, text) {
    const path = join(this.path, name);
    if (mkdirSync(dirname(path), { recursive: true })) {
      this.own(dirname(path));
    }
    writeFileSync(path, text);
    this.own(path);
  }

  remove() {
    rmSync(this.path, { recursive: true });
  }
}

/** Starts a server in the terminal, opens its preview as a person does, edits, and looks. */
async function edit(files, command, tells, [name, text]) {
  const project = new Project(files);
  try {
    await view.type(`clear; cd ${project.path} && ${command}\r`);
    const port = /localhost:(\d+)/.exec(await view.sees(tells))[1];
    const chip = view.page.getByRole('button', { name: new RegExp(`^Open .*[Pp]ort ${port}$`) });
    const [preview] = await Promise.all([view.page.waitForEvent('popup'), chip.click()]);
    preview.setDefaultTimeout(PATIENCE);
    await preview.getByText('the first words').waitFor();
    const address = new URL(preview.url());
    assert.equal(address.hostname, `${port}-whim.localhost`);
    assert.equal(address.search, '', 'the credential is out of the address');

    // Development servers watch and connect a moment after their page is there.
    await preview.evaluate(() => { window.untouched = true; });
    const words = preview.getByText('the second words');
    await until('the edit', async () => {
      project.write(name, text);
      return words.waitFor({ timeout: 1000 }).then(() => true, () => false);
    });
    assert.equal(await preview.evaluate(() => window.untouched), true, 'not by a reload');
    await preview.close();
    await view.focus();
    await view.page.keyboard.press('Control+C');
    await chip.waitFor({ state: 'hidden' });
  } finally {
    project.remove();
  }
}

test('an edit under Vite', () => edit({
  // Where this is, Vite keeps what it remembers.
  'package.json': '{"private":true}',
  'index.html': '<h1></h1><script type="module" src="/main.js"></script>',
  'main.js': `import { said } from './said.js';
    const show = (text) => { document.querySelector('h1').textContent = text; };
    show(said);
    import.meta.hot.accept('./said.js', (fresh) => show(fresh.said));`,
  'said.js': "export const said = 'the first words';",
}, 'node ../node_modules/vite/bin/vite.js', /➜ +Local: +http:\/\/localhost:/, ['said.js', "export const said = 'the second words';"]));

test('an edit under Next', () => edit({
  'package.json': '{"private":true}',
  'pages/index.js': 'export default function Page() { return <h1>the first words</h1>; }',
}, 'NEXT_TELEMETRY_DISABLED=1 node ../node_modules/next/dist/bin/next dev --webpack', /- Local: +http:\/\/localhost:/, [
  'pages/index.js', 'export default function Page() { return <h1>the second words</h1>; }',
]));
