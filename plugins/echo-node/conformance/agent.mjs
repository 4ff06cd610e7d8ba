// The agent in Node: obeys tools/conformance/ORDERS.md by p2pos.mjs. Silver.

import { Ended, Refused, Session } from '../p2pos.mjs';

const PREFIX = '/p2pos/conformance';
const unsupported = new Error('unsupported');

/** Streams that nobody has taken yet, oldest first, and orders that wait for one. */
class Untaken {
  streams = [];
  waiting = [];
  keep = async (offer) => {
    const stream = await offer.accept();
    const taker = this.waiting.shift();
    if (taker) taker(stream);
    else this.streams.push(stream);
  };
  take() {
    return this.streams.length ? this.streams.shift() : new Promise((taker) => this.waiting.push(taker));
  }
}
const untaken = { stream: new Untaken(), detached: new Untaken() };

async function obey(offer) {
  const orders = await offer.accept();
  const state = { subject: null };
  let said = '';
  for (let chunk; (chunk = await orders.read()); ) {
    said += chunk.toString('latin1');
    for (let at; (at = said.indexOf('\n')) >= 0; said = said.slice(at + 1)) {
      const answer = await carryOut(said.slice(0, at).split(' '), state).catch(told);
      await orders.write(`${answer}\n`);
    }
  }
  orders.finish();
}

function told(error) {
  if (error instanceof Refused) return `error ${error.code}`;
  if (error instanceof Ended) return `ended ${error.code} ${error.app}`;
  return error === unsupported ? 'unsupported' : `failed: ${error.stack}`;
}

async function carryOut([word, ...words], state) {
  const { subject } = state;
  switch (word) {
    case 'hello':
      return 'ok p2pos.mjs of echo-node';
    case 'take': {
      const kept = untaken[words[0] ?? 'stream'];
      if (!kept) throw unsupported;
      state.subject = await kept.take();
      return `ok ${state.subject.peer} ${state.subject.protocol}`;
    }
    case 'open': {
      const [peer, protocol, kind] = words;
      if (kind && kind !== 'detached') throw unsupported;
      state.subject = await session.open(peer, [protocol], { detached: kind === 'detached' });
      return `ok ${state.subject.protocol}`;
    }
    case 'write': {
      const [count, seed] = words.map(Number);
      await subject.write(Uint8Array.from({ length: count }, (_, at) => (seed + at) % 251));
      return `ok ${count}`;
    }
    case 'read':
      return read(subject, words[0] === 'end' ? Infinity : Number(words[0]));
    case 'echo': {
      let count = 0;
      for (let chunk; (chunk = await subject.read()); count += chunk.length) await subject.write(chunk);
      subject.finish();
      return `ok ${count}`;
    }
    case 'finish':
      subject.finish();
      return 'ok';
    case 'reset':
      subject.reset(Number(words[0]));
      return 'ok';
    case 'stop':
      subject.stop(Number(words[0]));
      return 'ok';
    case 'closed': {
      const { cause, code, app, bytesIn, bytesOut } = await subject.closed();
      return `ok ${['ended', 'finished', 'local', 'remote'][cause]} ${code} ${app} ${bytesIn} ${bytesOut}`;
    }
  }
  throw unsupported;
}

async function read(subject, count) {
  let [a, b, got] = [1, 0, 0]; // Adler-32
  while (got < count) {
    const chunk = await subject.read(Math.min(65536, count - got));
    if (!chunk) break;
    for (const byte of chunk) {
      a = (a + byte) % 65521;
      b = (b + a) % 65521;
    }
    got += chunk.length;
  }
  return `ok ${got} ${b * 65536 + a} ${got < count ? 'fin' : 'more'}`;
}

const session = await Session.connect('agent in Node').catch((error) => {
  console.error(error.message);
  process.exit(1);
});
await session.register(
  { protocol: `${PREFIX}/1`, serve: obey },
  { protocol: `${PREFIX}-stream/1`, serve: untaken.stream.keep },
  { protocol: `${PREFIX}-refused/1`, serve: (offer) => offer.reject('as ordered') },
  { protocol: `${PREFIX}-detached/1`, detached: true, serve: untaken.detached.keep },
);
session.ready();
const why = await session.over;
if (why) console.error(why.message); // and still 0: ORDERS.md, "Start and end"
process.exit(0);
