// The p2pOS plugin protocol, version 1, over node:net: no package, no build. Copy this file beside your plugin.
//
// From top to bottom: protobuf, as far as needed; frames; a session; a stream; the socket of a detached stream. Everything runs on the
// event loop, so reading never waits for writing [S-FRAME-6]. Names like [S-FLOW-3] are rules of plugin-protocol/SPEC.md; numbers of fields
// and bodies are plugin.proto's. Left out: datagrams, events, contacts.

import net from 'node:net';

// --- protobuf: a field is number * 8 + type as a varint; type 0 is a varint, type 2 a length and bytes.

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
}
const number = (field, value) => (value ? Buffer.concat([varint(field << 3), varint(Number(value))]) : Buffer.alloc(0));
const block = (field, bytes) => Buffer.concat([varint((field << 3) | 2), varint(Buffer.byteLength(bytes)), Buffer.from(bytes)]);

/** A message as an array of [field, value]: a number or a Buffer. Numbers above 2^53 lose their last digits; we use none. */
function fields(message) {
  const found = [];
  let at = 0;
  const take = () => {
    for (let value = 0, scale = 1, count = 0; count < 10; count++, scale *= 128) {
      if (at >= message.length) break;
      const byte = message[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new Error('a frame came that is no protobuf [S-MSG-4]');
  };
  while (at < message.length) {
    const key = take();
    const field = Math.floor(key / 8);
    if (key % 8 === 0) found.push([field, take()]);
    else if (key % 8 === 2) {
      const length = take();
      if (at + length > message.length) throw new Error('a frame came that reaches out of itself [S-MSG-4]');
      found.push([field, message.subarray(at, (at += length))]);
    } else if (key % 8 === 1) at += 8;
    else if (key % 8 === 5) at += 4;
    else throw new Error(`a frame came with wire type ${key % 8} [S-MSG-4]`);
  }
  return found;
}

/** Reads fields by number; the last one counts, and one that is absent or of another type is 0 or empty. */
class Message {
  constructor(bytes) {
    this.map = new Map(fields(bytes));
  }
  number(field) {
    const value = this.map.get(field);
    return typeof value === 'number' ? value : 0;
  }
  bytes(field) {
    const value = this.map.get(field);
    return Buffer.isBuffer(value) ? value : Buffer.alloc(0);
  }
  text(field) {
    return this.bytes(field).toString('utf8');
  }
}

// --- frames: four bytes of length, big end first, then Frame{rid = 1, one body}.

const DATA = 2, WINDOW = 3, RESET = 5, STOP_SENDING = 6, STREAM_CLOSED = 7, OPEN = 8, OPENED = 9, INCOMING = 10, ACCEPT = 11, REJECT = 12;
const PING = 13, PONG = 14, ERROR = 15, HELLO = 16, WELCOME = 17, REFUSED = 20, ATTACH = 21, ATTACHED = 22, DONE = 24, REGISTER = 25;
const READY = 28, BODY_LAST = 36, SHUTDOWN = 36;

const FRAME_BYTES_MAX = 1 << 20; // what we take; the default, as Hello tells no other [S-FRAME-2]
const WINDOW_BYTES = 256 << 10; // what the daemon may send on a stream before we have read [S-FLOW-2]
const QUEUED_BYTES_MAX = 2 << 20; // answers that a daemon does not read; above it, it is at fault
const PING_AFTER_MS = 15_000; // of silence; after three times as much the daemon is taken for dead [S-PING-1]
const CLOSE_MS_MAX = 2_000; // for what is still to be written at the end

function encode(rid, body, ...parts) {
  const frame = Buffer.concat([number(1, rid), block(body, Buffer.concat(parts))]);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(frame.length);
  return Buffer.concat([head, frame]);
}

function decode(bytes) {
  const frame = { rid: 0, body: 0, bytes: Buffer.alloc(0) };
  for (const [field, value] of fields(bytes)) {
    if (field === 1 && typeof value === 'number') frame.rid = value;
    else if (field <= BODY_LAST && Buffer.isBuffer(value)) Object.assign(frame, { body: field, bytes: value }); // the last known one counts
  }
  return Object.assign(frame, { message: new Message(frame.bytes) });
}

function lengthOf(head) {
  const length = head.readUInt32BE(0);
  if (length === 0 || length > FRAME_BYTES_MAX) throw new Error(`a frame of ${length} bytes came [S-FRAME-2]`);
  return length;
}

function dial() {
  const [, kind, where] = /^(unix|tcp):(.+)$/.exec(process.env.P2POS_ENDPOINT ?? '') ?? [];
  if (!kind) throw new Error('P2POS_ENDPOINT is neither unix: nor tcp: start this through p2pos, or by `p2pos plugins run`');
  const [, host, port] = kind === 'tcp' ? /^(.+):(\d+)$/.exec(where) : [];
  return net.connect({ ...(kind === 'unix' ? { path: where } : { host, port: Number(port), noDelay: true }), allowHalfOpen: true });
}

// --- what can go wrong

/** The daemon's bad answer to a request; `code` is of section 10 of SPEC.md. */
export class Refused extends Error {
  constructor(code, text, hint) {
    super(`${code}: ${text} (${hint})`);
    this.code = code;
  }
}

/** How a stream ended, if not well: 400 with the other program's number in `app`, 403, 404, or 105 when our session is over. */
export class Ended extends Error {
  constructor(code, app = 0) {
    super(code === 400 ? `the other side ended the stream with its number ${app}` : `the stream ended with code ${code}`);
    Object.assign(this, { code, app });
  }
}

/** Wakes all who wait. */
class Bell {
  #waiting = [];
  wait() {
    return new Promise((wake) => this.#waiting.push(wake));
  }
  ring() {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

// --- a session

export class Session {
  #socket;
  #rest = Buffer.alloc(0); // what came and is no whole frame yet
  #rid = 0;
  #id = -1; // of the stream that we opened last: ours are odd
  #waiting = new Map(); // rid -> {resolve, reject}
  #services = new Map();
  #streams = new Map();
  #heard = Date.now();
  #ended = false;
  #drained = new Bell();
  #finish;
  /** Settles when the session is over: with null if the daemon asked for it or is gone, otherwise with what was wrong. */
  over = new Promise((finish) => (this.#finish = finish));

  /** Finds the daemon, says Hello and waits for Welcome. */
  static async connect(sdk) {
    const session = new Session();
    await session.#greet(sdk);
    return session;
  }

  async #greet(sdk) {
    this.#socket = dial();
    this.#socket.on('data', (chunk) => this.#read(chunk));
    this.#socket.on('end', () => this.#end(null)); // the daemon is gone, however that came [S-END-1]
    this.#socket.on('error', (error) => this.#end(error));
    this.#socket.on('drain', () => this.#ringAll());
    const token = process.env.P2POS_TOKEN ?? '';
    const welcome = await this.#ask(
      HELLO, block(1, 'p2pOS'), number(2, 1), number(3, 1), block(5, sdk), block(6, token), number(9, WINDOW_BYTES));
    const limits = new Message(welcome.bytes(8)); // [S-LIMIT-1]
    this.dataBytesMax = limits.number(2);
    this.windowBytes = limits.number(3);
    this.peerId = welcome.text(6);
    const watch = setInterval(() => this.#watch(), PING_AFTER_MS).unref();
    this.over.then(() => clearInterval(watch));
    if (process.env.P2POS_EXIT_ON_STDIN_CLOSE === '1') {
      for (const event of ['end', 'close', 'error']) process.stdin.on(event, () => this.#end(null)); // our daemon is gone [S-END-3]
      process.stdin.resume();
    }
  }

  /** Serves protocols from now on: [{protocol, serve, detached, anyone}]. `serve` gets each Offer and may be async. */
  async register(...services) {
    for (const service of services) this.#services.set(service.protocol, service); // the first Incoming may come right behind Done
    await this.#ask(REGISTER, ...services.map(({ protocol, detached, anyone }) =>
      block(1, Buffer.concat([block(1, protocol), number(2, 1), number(3, anyone ? 2 : 0), number(5, detached ? 2 : 0)]))));
  }

  /** Says that start-up is over. */
  ready() {
    this._send(READY);
  }

  /** Opens the first of these protocols that the peer serves. Throws Refused. */
  async open(peer, protocols, { detached = false } = {}) {
    const id = (this.#id += 2); // taken in the same turn in which Open is sent, so they are sent in their order [S-STREAM-1]
    const stream = this.#begin(id, { peer });
    let opened;
    try {
      opened = await this.#ask(OPEN, number(1, id), block(2, peer), ...protocols.map((name) => block(3, name)), number(4, 1),
        number(5, detached ? 2 : 0));
    } catch (error) {
      this.#streams.delete(id); // no StreamClosed follows [S-STREAM-10]
      throw error;
    }
    stream.protocol = opened.text(2);
    return opened.bytes(4).length ? attach(stream, opened.bytes(4)) : stream;
  }

  /** Ends the session, and all streams with it; what was written before still goes out. */
  close() {
    this.#end(null);
    return this.over;
  }

  _send(body, ...parts) {
    this.#sendFor(0, body, ...parts);
  }

  /** Whether Data has to wait for the socket. Node keeps one queue for all frames, so their order is ours. */
  get _isFull() {
    return this.#socket.writableNeedDrain;
  }

  #sendFor(rid, body, ...parts) {
    if (!this.#ended) this.#socket.write(encode(rid, body, ...parts));
  }

  #ask(body, ...parts) {
    if (this.#ended) return Promise.reject(new Ended(105));
    const rid = ++this.#rid;
    return new Promise((resolve, reject) => {
      this.#waiting.set(rid, { resolve, reject });
      this.#sendFor(rid, body, ...parts);
    });
  }

  #read(chunk) {
    this.#heard = Date.now();
    this.#rest = this.#rest.length ? Buffer.concat([this.#rest, chunk]) : chunk;
    try {
      while (!this.#ended && this.#rest.length >= 4) {
        const length = lengthOf(this.#rest);
        if (this.#rest.length < 4 + length) break;
        const frame = decode(this.#rest.subarray(4, 4 + length));
        this.#rest = this.#rest.subarray(4 + length);
        this.#handle(frame);
      }
      if (this.#socket.writableLength > QUEUED_BYTES_MAX) throw new Error('the daemon does not read [S-FRAME-6]');
    } catch (error) {
      this.#end(error);
    }
  }

  #handle({ rid, body, bytes, message }) {
    // Of Data to StreamClosed the first field is the stream. One that is not there is over: what came has crossed its end [S-STREAM-9].
    const stream = this.#streams.get(message.number(1));
    const end = () => new Ended(message.number(2), message.number(3));
    switch (body) {
      case DATA: return stream?._data(message.bytes(2), message.number(3) !== 0);
      case WINDOW: return stream?._credit(message.number(2));
      case STOP_SENDING: return stream?._stopWriting(end());
      case RESET: return stream?._abort(end());
      case STREAM_CLOSED:
        this.#streams.delete(message.number(1));
        return stream?._close(message.number(2), message.number(3), message.number(4), message.number(5), message.number(6));
      case INCOMING: return void this.#offer(rid, message);
      case PING: return this.#sendFor(rid, PONG, bytes); // its one field goes back as it came
      case SHUTDOWN: return this.#end(null);
      case WELCOME: case OPENED: case DONE: return this.#waiting.get(rid)?.resolve(message), this.#waiting.delete(rid);
      case REFUSED: return this.#answerBadly(1, new Refused(message.number(1), message.text(2), message.text(3))); // of Hello, our first
      case ERROR: return this.#answerBadly(rid, new Refused(message.number(1), message.text(3), message.text(4)));
      case 0: // of a later version: with a rid it is a request [S-MSG-6]
        if (rid) this.#sendFor(rid, ERROR, number(1, 201), block(2, 'UNKNOWN_METHOD'));
    }
  }

  #answerBadly(rid, refused) {
    const asked = this.#waiting.get(rid);
    this.#waiting.delete(rid); // an answer that nobody waits for is ignored [S-REQ-4]
    if (asked) asked.reject(refused);
    else if (rid === 0 && Math.floor(refused.code / 100) === 1) this.#end(refused); // about the connection [S-END-2]
  }

  #begin(id, facts) {
    const stream = new Stream(this, id, facts);
    this.#streams.set(id, stream);
    return stream;
  }

  async #offer(rid, message) {
    const facts = { peer: message.text(2), protocol: message.text(3), petname: message.text(6) };
    const stream = this.#begin(message.number(1), facts); // at once: Data may come before we have accepted [S-STREAM-3]
    let isOpen = true;
    const answer = (body, ...parts) => {
      const isFirst = isOpen && !stream._isAborted;
      isOpen = false;
      if (isFirst) this.#sendFor(rid, body, number(1, stream.id), ...parts);
      return isFirst;
    };
    const offer = {
      ...facts,
      /** Takes the stream. Throws Ended if the peer has given it up meanwhile. */
      accept: async () => {
        if (!answer(ACCEPT)) throw stream._isAborted ? stream._reading : new Error('the offer was accepted or rejected before');
        return message.bytes(8).length ? attach(stream, message.bytes(8)) : stream;
      },
      /** Refuses it: the peer's program gets 305. Harmless behind accept. */
      reject: (reason) => {
        if (answer(REJECT, number(2, 305), block(3, reason))) this.#streams.delete(stream.id); // no StreamClosed follows [S-STREAM-10]
      },
    };
    try {
      await this.#services.get(facts.protocol)?.serve(offer);
    } catch (error) {
      if (!(error instanceof Ended)) console.error(error);
      stream.reset(0);
    }
    offer.reject('nobody took it');
  }

  #watch() {
    const silence = Date.now() - this.#heard;
    if (silence >= PING_AFTER_MS) this._send(PING, number(1, 1));
    if (silence > 3 * PING_AFTER_MS) this.#end(new Error(`nothing came from the daemon for ${silence} ms`));
  }

  #ringAll() {
    for (const stream of this.#streams.values()) stream._bell.ring();
  }

  /** Ends the session once, and with it all that waits [S-END-1]. */
  #end(why) {
    if (this.#ended) return;
    this.#ended = true;
    for (const stream of this.#streams.values()) stream._close(3, 105, 0, 0, 0);
    for (const asked of this.#waiting.values()) asked.reject(new Ended(105));
    const gone = () => (this.#socket.destroy(), this.#finish(why));
    setTimeout(gone, CLOSE_MS_MAX).unref();
    this.#socket.destroyed ? gone() : this.#socket.end(gone);
  }
}

// --- a stream

const FINISHED = Symbol('the other side has finished');

export class Stream {
  _bell = new Bell();
  #session;
  #credit; // bytes that we may send [S-FLOW-1]
  #arrived = [];
  #consumed = 0; // bytes that were read since our last Window
  _reading = null; // why nothing more comes: FINISHED or an Error; null while it may
  _writing = null; // why nothing more may be written
  #closed = null;

  constructor(session, id, facts) {
    this.#session = session;
    this.#credit = session.windowBytes;
    Object.assign(this, { id, raw: null }, facts);
  }

  /** Up to `max` bytes, as soon as there are some; null when the other side has finished. Throws Ended if the stream did not end well. */
  async read(max = 65536) {
    for (;;) {
      if (this.#arrived.length === 0) this.#arrived.push(...this.#fromSocket());
      const [chunk] = this.#arrived;
      if (chunk) return this.#consume(chunk, max);
      if (this._reading === FINISHED) return null;
      if (this._reading) throw this._reading;
      await this._bell.wait();
    }
  }

  #fromSocket() {
    const chunk = this._reading ? null : this.raw?.read();
    return chunk ? [chunk] : [];
  }

  #consume(chunk, max) {
    const taken = chunk.subarray(0, max);
    if (chunk.length > max) this.#arrived[0] = chunk.subarray(max);
    else this.#arrived.shift();
    this.#consumed += taken.length;
    // Credit is for what was read, so a reader that stops makes its writer stop; it comes at half of the window, so that the writer need not
    // wait; and not for somebody who writes no more [S-FLOW-4].
    if (!this.raw && !this._reading && this.#consumed >= WINDOW_BYTES / 2) {
      this.#session._send(WINDOW, number(1, this.id), number(2, this.#consumed));
      this.#consumed = 0;
    }
    return taken;
  }

  /** Hands over all bytes; waits while there is no credit. Throws Ended if nobody reads them. */
  async write(bytes) {
    for (let rest = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes); rest.length > 0; ) {
      if (this._writing) throw this._writing;
      const isFull = this.raw ? this.raw.writableNeedDrain : this.#session._isFull || this.#credit === 0;
      if (isFull) {
        await this._bell.wait();
        continue;
      }
      const piece = rest.subarray(0, Math.min(this.#session.dataBytesMax, this.raw ? rest.length : this.#credit));
      rest = rest.subarray(piece.length);
      if (this.raw) this.raw.write(piece);
      else {
        this.#credit -= piece.length;
        this.#session._send(DATA, number(1, this.id), block(2, piece));
      }
    }
  }

  /** Says that we write no more (fin). Reading goes on. */
  finish() {
    if (this._writing) throw this._writing;
    this._writing = new Error('the stream was finished already');
    if (this.raw) this.raw.end();
    else this.#session._send(DATA, number(1, this.id), number(3, 1));
  }

  /** Says that we read no more. Writing goes on. Not for detached streams [S-ATTACH-4]. */
  stop(app) {
    if (this._reading || this.raw) return;
    this._reading = new Ended(400, app);
    this.#arrived = [];
    this.#session._send(STOP_SENDING, number(1, this.id), number(2, 400), number(3, app));
    this._bell.ring();
  }

  /** Ends both directions at once; the other program gets the number. Harmless for a stream that is over. */
  reset(app) {
    if (this.#closed || (!this.raw && this._reading && this._writing)) return;
    this.#session._send(RESET, number(1, this.id), number(2, 400), number(3, app));
    this._abort(new Ended(400, app));
  }

  /** Waits for the daemon's last word. `cause`: 1 finished, 2 reset by us, 3 reset by the other side. */
  async closed() {
    while (!this.#closed) await this._bell.wait();
    return this.#closed;
  }

  get _isAborted() {
    return this._reading instanceof Ended;
  }

  _data(payload, isLast) {
    if (this._reading) return; // it was on its way when we stopped reading [S-STREAM-6]
    if (payload.length) this.#arrived.push(payload);
    if (isLast) this._reading = FINISHED;
    this._bell.ring();
  }

  _credit(bytes) {
    this.#credit += bytes;
    this._bell.ring();
  }

  _stopWriting(why) {
    this._writing ??= why;
    this._bell.ring();
  }

  _abort(why) {
    if (!this._reading) {
      this._reading = why;
      this.#arrived = [];
    }
    this._stopWriting(why);
  }

  _close(cause, code, app, bytesIn, bytesOut) {
    this.#closed = { cause, code, app, bytesIn, bytesOut };
    // Two sockets have no order between them, so a reset stream's own one stays open until here: closed before, it is a fin [S-ATTACH-3].
    if (cause !== 1) {
      this._abort(new Ended(code, app));
      this.raw?.destroy();
    }
    this._bell.ring();
  }
}

// --- a detached stream's own socket

/** Connects it. Behind Attached it is the stream: so four bytes are read, then the length, and not one more [S-ATTACH-2]. */
async function attach(stream, ticket) {
  const raw = dial();
  try {
    raw.on('readable', () => stream._bell.ring());
    raw.on('drain', () => stream._bell.ring());
    raw.on('end', () => ((stream._reading ??= FINISHED), stream._bell.ring()));
    raw.on('error', (error) => stream._abort(error)); // unless we know better already
    raw.write(encode(1, ATTACH, block(1, ticket)));
    const exactly = async (count) => {
      for (;;) {
        const bytes = raw.read(count);
        if (bytes?.length === count) return bytes;
        if (stream._reading) throw stream._reading === FINISHED ? new Ended(404) : stream._reading;
        await stream._bell.wait();
      }
    };
    const { body, message } = decode(await exactly(lengthOf(await exactly(4))));
    if (body === REFUSED) throw new Refused(message.number(1), message.text(2), message.text(3));
    if (body !== ATTACHED) throw new Error(`the answer to Attach is body ${body}`);
  } catch (error) {
    raw.destroy();
    stream.reset(0);
    throw error;
  }
  stream.raw = raw;
  return stream;
}
