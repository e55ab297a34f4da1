// The page beside a real agent: state, prompts and questions.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Browser, until, Whim } from './whim.mjs';

let browser;
let whim;
let view;

before(async () => {
  const script = {
    rules: [{
      name: 'a file',
      when: { prompt_contains: 'make a file' },
      replies: [{ tools: [{ shell: 'touch made-by-agent' }] }, { text: 'The file is there.' }],
    }, {
      name: 'a greeting',
      when: { prompt_contains: 'say hello' },
      replies: [{ text: 'Hello from the model.' }],
    }],
  };
  whim = await Whim.claude(script, '--permission-mode', 'default');
  browser = await Browser.start();
  view = await browser.open(whim);
});

after(async () => {
  const [code] = await Promise.all([whim?.stop(), browser?.stop()]);
  assert.equal(code, 0, whim?.program.output);
  assert.deepEqual(view?.problems, [], 'nothing on the browser’s console');
});

/** Sends a prompt as a person does. */
async function prompt(text) {
  const box = view.page.getByRole('textbox', { name: 'Prompt for the agent' });
  await box.fill(text);
  await box.press('Enter');
  await until('the box to be empty', async () => (await box.inputValue()) === '');
}

const state = (word) => view.page.locator('header .word').getByText(word, { exact: true }).waitFor();

test('a prompt from the box is answered in the terminal, and its price is shown', async () => {
  await state('Idle');
  await prompt('say hello');
  await view.sees(/Hello from the model\./);
  await state('Idle');
  const spend = view.page.locator('header .spend');
  await until('a price', async () => /^\$0\.0*[1-9]/.test((await spend.textContent()) ?? ''));
});

test('a question is shown with its options, and the answer reaches the agent', async () => {
  await prompt('make a file');
  await state('Needs you');
  assert.match(await view.page.title(), /Needs you/);
  const question = view.page.getByRole('group', { name: 'The agent asks' });
  const options = question.getByRole('button');
  await until('several options', async () => (await options.count()) > 1);
  await options.first().click();
  await view.sees(/The file is there\./);
  await state('Idle');
  await question.waitFor({ state: 'hidden' });
});
