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
    }, {
      name: 'a farewell',
      when: { prompt_contains: 'say goodbye' },
      replies: [{ text: 'Goodbye from the model.' }],
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
  // As the terminal shows them: yes, yes for ever, no.
  await until('the options of the terminal', async () => (await options.count()) > 2);
  await options.getByText('Yes', { exact: true }).click();
  await view.sees(/The file is there\./);
  await state('Idle');
  await question.waitFor({ state: 'hidden' });
});

test('the conversation shows prompt, tool and answer, and its search finds them', async () => {
  await view.page.getByRole('tab', { name: 'Conversation' }).click();
  const panel = view.page.getByRole('tabpanel', { name: 'Conversation' });
  const turns = panel.locator('ol.turns > li');
  // In the order in which they were said.
  const answer = turns.filter({ hasText: 'The file is there.' });
  await answer.waitFor();
  const said = [/say hello/, /Hello from the model\./, /make a file/, /Bash.*touch made-by-agent/s, /The file is there\./];
  // Claude Code may write a prompt's record after its answer's.
  await until('everything, in order', async () => {
    const texts = await turns.allTextContents();
    const order = said.map((wanted) => texts.findIndex((text) => wanted.test(text)));
    return order.every((at, index) => at >= 0 && (index === 0 || at > order[index - 1]));
  });

  // A tool is one line until it is opened; its result belongs to it.
  const tool = turns.filter({ hasText: 'touch made-by-agent' }).locator('details.tool');
  assert.equal(await tool.count(), 1);
  const result = tool.locator('.result pre');
  assert.equal(await result.isVisible(), false);
  await tool.locator('summary').click();
  await result.waitFor({ state: 'visible' });
  assert.match((await answer.locator('.tokens').textContent()) ?? '', /in · .*out/);

  const search = panel.getByRole('searchbox', { name: 'Search the conversation' });
  await search.fill('MADE-by');
  await panel.getByText('1 found', { exact: true }).waitFor();
  assert.equal(await turns.count(), 1);
  assert.ok(await turns.locator('mark').first().isVisible(), 'what was found is not folded away');
  await search.fill('nobody said this');
  await panel.getByText('0 found', { exact: true }).waitFor();

  // The server's search finds words in any order, with where and by whom they were said.
  const everywhere = panel.getByRole('region', { name: 'Found everywhere' });
  await search.fill('made-by-agent touch');
  assert.equal(await everywhere.isVisible(), false);
  await panel.getByRole('button', { name: 'Search everywhere' }).click();
  const hit = everywhere.getByRole('listitem').filter({ hasText: 'touch made-by-agent' }).first();
  await hit.waitFor();
  assert.match((await hit.textContent()) ?? '', /main.*assistant/);
  assert.deepEqual([...new Set(await hit.locator('mark').allTextContents())].sort().join(' '), 'made-by-agent touch');
  await search.fill('nobody said this');
  await search.press('Enter');
  await everywhere.getByText('0 found everywhere', { exact: true }).waitFor();
  await search.fill('');
  assert.equal(await everywhere.isVisible(), false);

  // What is said while it is shown comes by itself, once.
  await prompt('say hello once more');
  await turns.filter({ hasText: 'say hello once more' }).waitFor();
  await until('the second greeting', async () => (await turns.filter({ hasText: 'Hello from the model.' }).count()) === 2);
  assert.equal(await turns.filter({ hasText: 'The file is there.' }).count(), 1);
  await view.page.getByRole('tab', { name: 'main' }).click();
});

test('an agent that was started again is seen again', async () => {
  const session = async () => (await whim.api('/v1/state')).sessions[0];
  const { pid } = await session();
  process.kill(pid, 'SIGKILL');
  await until('another agent', async () => (await session()).pid && (await session()).pid !== pid);
  await state('Idle');
  await prompt('say goodbye');
  await view.sees(/Goodbye from the model\./);
});
