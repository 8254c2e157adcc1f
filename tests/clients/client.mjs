// Requests by Node's clients. `client.mjs URL KEY SECRET PRIVATE` prints a line for each: its name, a tab, the
// status. The last two sign messages of Standard Webhooks: a secret, and an Ed25519 key in PKCS 8 and base64.
import crypto from 'node:crypto';
import http from 'node:http';
import http2 from 'node:http2';
import { Readable } from 'node:stream';
import zlib from 'node:zlib';

import axios from 'axios';
import * as standardwebhooks from 'standardwebhooks';
import * as svix from 'svix';

const [base, key, secret, privateKey] = process.argv.slice(2);
const path = '/webhooks/email-marketing/click';
const auth = { authorization: `Bearer ${key}` };
const json = { ...auth, 'content-type': 'application/json' };
const noise = (name) => (name.includes('large') ? `,"noise":"${'x'.repeat(100_000)}"` : '');
const click = (name) => `{"campid":"${name}"${noise(name)}}`;
const say = (name, status) => console.log(`${name}\t${status}`);

async function byFetch(name, options = {}, target = path) {
    const answer = await fetch(base + target, {
        method: 'POST', headers: json, body: click(name), ...options,
    });
    await answer.text();
    say(name, answer.status);
}

function pieces(name) {
    return Readable.toWeb(Readable.from([click(name).slice(0, 5), click(name).slice(5)].map(Buffer.from)));
}

await byFetch('fetch: text');
await byFetch('fetch: large');
await byFetch('fetch: a stream', { body: pieces('fetch: a stream'), duplex: 'half' });
await byFetch('fetch: a Blob', { body: new Blob([click('fetch: a Blob')]), headers: auth });
await byFetch('fetch: gzip', {
    body: zlib.gzipSync(click('fetch: gzip')), headers: { ...json, 'content-encoding': 'gzip' },
});
await byFetch('fetch: deflate', {
    body: zlib.deflateSync(click('fetch: deflate')), headers: { ...json, 'content-encoding': 'deflate' },
});
await byFetch('fetch: brotli', {
    body: zlib.brotliCompressSync(click('fetch: brotli')), headers: { ...json, 'content-encoding': 'br' },
});
await byFetch('fetch: a slash at the end', {}, `${path}/`);
await byFetch('fetch: a form', {
    body: new URLSearchParams({ campid: 'fetch: a form' }), headers: auth,
}, '/form');

async function byAxios(name, data, more = {}) {
    const answer = await axios.post(base + (more.target ?? path), data, { headers: auth, ...more });
    say(name, answer.status);
}

await byAxios('axios: an object', { campid: 'axios: an object' });
await byAxios('axios: a stream', Readable.from([Buffer.from(click('axios: a stream'))]));
await byAxios('axios: a form', new URLSearchParams({ campid: 'axios: a form' }), { target: '/form' });
await byAxios('axios: user and password', click('axios: user and password'), {
    target: '/basic', headers: {}, auth: { username: 'user', password: 'a-password-of-the-tests' },
});

function byHttp(name, headers, send) {
    return new Promise((resolve, reject) => {
        const request = http.request(base + path, { method: 'POST', headers: { ...json, ...headers } });
        request.on('error', reject).on('response', (answer) => {
            say(name, answer.statusCode);
            answer.resume().on('end', resolve);
        });
        send(request);
    });
}

await byHttp('http: chunks', {}, (request) => {
    request.write('{"campid":');
    request.end('"http: chunks"}');
});
await byHttp('http: expects 100', { expect: '100-continue' }, (request) => {
    request.on('continue', () => request.end(click('http: expects 100')));
});
await byHttp('http: trailers', { trailer: 'x-checksum' }, (request) => {
    request.write(click('http: trailers'));
    request.addTrailers({ 'x-checksum': '7' });
    request.end();
});

await new Promise((resolve, reject) => {
    const session = http2.connect(base);
    const request = session.request({ ':method': 'POST', ':path': path, ...json });
    request.on('error', reject).on('response', (headers) => say('http2: a stream', headers[':status']));
    request.resume().on('end', () => session.close(resolve));
    request.end(click('http2: a stream'));
});

// Messages of Standard Webhooks, signed by those who specified it.
async function byReference(name, library, prefix, more = '') {
    const webhook = new library.Webhook(secret);
    const [id, time] = [`msg_${Buffer.from(name).toString('hex')}`, new Date()];
    const headers = {
        [`${prefix}-id`]: id,
        [`${prefix}-timestamp`]: `${Math.floor(time / 1_000)}`,
        [`${prefix}-signature`]: webhook.sign(id, time, click(name)) + more,
    };
    // The reference accepts it, too.
    webhook.verify(click(name), headers);
    await byFetch(name, { headers }, '/standard');
}

await byReference('svix for Node', svix, 'svix');
await byReference('standardwebhooks for Node', standardwebhooks, 'webhook');
await byReference('standardwebhooks for Node: further signatures', standardwebhooks, 'webhook', ' v1a,AAAA v2,x');

// v1a by OpenSSL, as the specification has it.
{
    const name = 'Ed25519 by OpenSSL';
    const [id, time] = ['msg_ed25519', `${Math.floor(Date.now() / 1_000)}`];
    const pair = crypto.createPrivateKey({
        key: Buffer.from(privateKey, 'base64'), format: 'der', type: 'pkcs8',
    });
    const signature = crypto.sign(null, Buffer.from(`${id}.${time}.${click(name)}`), pair);
    const headers = {
        'webhook-id': id, 'webhook-timestamp': time, 'webhook-signature': `v1a,${signature.toString('base64')}`,
    };
    await byFetch(name, { headers }, '/standard');
}
