// Runs the public tests of HTTP caches against a cache, and prints their results as JSON on one line.
//
//   node run.mjs FOLDER ORIGIN_PORT CACHE_URL [SUITE…]
//
// FOLDER has the installed packages. The origin listens on this port of 127.0.0.1, and the cache forwards to it. Without
// suites, all are run. The result is {"tests": [{id, suite, kind, result}], "others": {NAME: {ID: result}}}, in which a
// result is true, or [kind of failure, message].

import fs from 'node:fs'
import net from 'node:net'
import { pathToFileURL } from 'node:url'

const [folder, port, cacheUrl, ...suites] = process.argv.slice(2)
const root = `${folder}/node_modules/http-cache-tests`
const load = async (file) => await import(pathToFileURL(`${folder}/node_modules/${file}`))

// The origin listens on all addresses otherwise.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, Number(port), '127.0.0.1', ...rest)
}
// It prints its address; standard output is for the result.
console.log = console.error
Object.assign(process.env, { npm_config_port: port, npm_config_protocol: 'http', npm_config_pidfile: '/dev/null' })
process.chdir(root)
await load('http-cache-tests/server/server.mjs')

const { default: all } = await load('http-cache-tests/tests/index.mjs')
const { default: surrogate } = await load('http-cache-tests/tests/surrogate-control.mjs')
const { default: fetch } = await load('node-fetch/lib/index.mjs')
const { runTests, getResults } = await load('http-cache-tests/client/runner.mjs')

const selected = [...all, surrogate].filter(suite => suites.length === 0 || suites.includes(suite.id))
const unknown = suites.filter(id => !selected.some(suite => suite.id === id))
if (unknown.length > 0) throw new Error(`no suites ${unknown}`)
await runTests(selected, fetch, false, cacheUrl)
const results = getResults()
const tests = selected.flatMap(suite => suite.tests.filter(test => !test.browser_only).map(test => ({
  id: test.id,
  suite: suite.id,
  kind: test.kind ?? 'required',
  result: results[test.id]
})))
const others = {}
for (const name of ['nginx', 'squid', 'varnish', 'apache', 'trafficserver', 'fastly', 'nuster']) {
  others[name] = JSON.parse(fs.readFileSync(`results/${name}.json`))
}
// The servers would keep the process alive. A pipe takes the text in parts, so it ends only after the last one.
process.stdout.write(JSON.stringify({ tests, others }) + '\n', () => process.exit(0))
