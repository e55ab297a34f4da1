// Measures a terminal server that speaks ttyd's `tty` protocol, and one beside it, in turns.
//
//   npm i ws   (anywhere above this file, or NODE_PATH)
//   node bench.mjs ROUNDS name=ws://host:port/path,pid[,bearer] name=...
//
// Each terminal must run a shell. Printed: medians over the rounds of throughput of `cat` of 200 MB (MB/s), CPU of the
// server's process per MB (ms), echo through `cat` (p50 and p99, µs), bytes after PAUSE, and how long a program takes
// with a stalled viewer against none.

import { readFileSync, writeFileSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import WebSocket from 'ws';

const [rounds, ...targets] = process.argv.slice(2);
const FILE = join(tmpdir(), 'whim-bench-200mb.txt');
const MB = 1e6;
if (!existsSync(FILE)) {
  const line = Array.from({ length: 40 }, (_, i) => `line ${i} of text as programs print it, ${'x'.repeat(i)}\n`).join('');
  writeFileSync(FILE, line.repeat(Math.ceil((200 * MB) / line.length)).slice(0, 200 * MB));
}

const cpu = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
};
const rss = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);

class Client {
  static async open(target) {
    const client = new Client();
    const headers = target.bearer ? { authorization: `Bearer ${target.bearer}` } : {};
    client.ws = new WebSocket(target.url, ['tty'], { perMessageDeflate: false, headers, skipUTF8Validation: true });
    client.bytes = 0;
    client.waiters = [];
    client.tail = '';
    await new Promise((resolve, reject) => { client.ws.on('open', resolve); client.ws.on('error', reject); });
    client.ws.on('message', (data) => {
      if (data[0] !== 0x30) return;
      client.bytes += data.length - 1;
      const end = data.toString('latin1', Math.max(1, data.length - 200));
      client.tail = (client.tail + end).slice(-400);
      client.waiters = client.waiters.filter(([wanted, resolve]) => !(client.tail.includes(wanted) && (resolve(), true)));
    });
    client.ws.send(JSON.stringify({ AuthToken: '', columns: 80, rows: 24 }));
    return client;
  }
  type(text) { this.tail = ''; this.ws.send(`0${text}`); }
  until(wanted) { return new Promise((resolve) => this.waiters.push([wanted, resolve])); }
  close() { this.ws.terminate(); }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)];

async function throughput(target) {
  const client = await Client.open(target);
  await sleep(300);
  const [began, before, bytes] = [performance.now(), cpu(target.pid), client.bytes];
  client.type(`cat ${FILE}; echo do''ne\r`);
  await client.until('done');
  const seconds = (performance.now() - began) / 1000;
  const moved = (client.bytes - bytes) / MB;
  const used = cpu(target.pid) - before;
  client.close();
  return { mbs: 200 / seconds, received: moved, cpu: used / 200 };
}

async function echo(target) {
  const client = await Client.open(target);
  await sleep(300);
  client.type('stty -echo -icanon; cat\r');
  await sleep(400);
  const times = [];
  for (let i = 0; i < 1000; i++) {
    const began = process.hrtime.bigint();
    const heard = client.until('q');
    client.type('q');
    await heard;
    times.push(Number(process.hrtime.bigint() - began) / 1000);
  }
  client.type('\x03');
  await sleep(100);
  client.type('stty sane\r');
  await sleep(100);
  client.close();
  times.sort((a, b) => a - b);
  return { p50: times[500], p99: times[990] };
}

async function pause(target) {
  const client = await Client.open(target);
  await sleep(300);
  client.type(`cat ${FILE}; echo do''ne\r`);
  await sleep(200);
  client.ws.send('2');
  await sleep(20);
  const at = client.bytes;
  await sleep(1000);
  const late = client.bytes - at;
  client.ws.send('3');
  await client.until('done');
  client.close();
  return late;
}

// A program that notes how long it took; watched by a client that reads nothing, and by none.
async function stalled(target) {
  const run = async (stall) => {
    const client = await Client.open(target);
    await sleep(300);
    const file = join(tmpdir(), `whim-bench-${process.pid}.time`);
    client.type(`sleep 0.5; s=$(date +%s%N); cat ${FILE}; e=$(date +%s%N); echo $(( (e-s)/1000000 )) > ${file}\r`);
    await sleep(100);
    if (stall) client.ws._socket.pause(); else client.close();
    const deadline = Date.now() + 15000;
    while (!existsSync(file) && Date.now() < deadline) await sleep(50);
    const took = existsSync(file) ? Number(readFileSync(file, 'utf8')) : Infinity;
    client.close();
    await sleep(300);
    if (existsSync(file)) (await import('node:fs')).unlinkSync(file);
    return took;
  };
  return { unwatched: await run(false), stalled: await run(true) };
}

const list = targets.map((text) => {
  const [name, rest] = [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)];
  const [url, pid, bearer] = rest.split(',');
  return { name, url, pid, bearer, rows: [] };
});
for (let round = 0; round < Number(rounds); round++) {
  for (const target of list) {
    target.rows.push({ ...(await throughput(target)), ...(await echo(target)) });
  }
}
for (const target of list) {
  const of = (key) => median(target.rows.map((row) => row[key])).toFixed(1);
  console.log(target.name, `${of('mbs')} MB/s (received ${of('received')} MB), ${of('cpu')} ms CPU/MB, echo p50 ${of('p50')} p99 ${of('p99')} µs, RSS ${rss(target.pid)} kB`);
  console.log(target.name, 'bytes from 20 ms after PAUSE on:', await pause(target));
  if (!process.env.NO_STALL) console.log(target.name, 'program, ms:', JSON.stringify(await stalled(target)));
  console.log(target.name, 'RSS after:', rss(target.pid), 'kB');
}
process.exit(0);
