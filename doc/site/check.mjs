// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
//
// Checks the site in Chromium: node check.mjs SITE SCREENSHOTS NAMES. NAMES is a file with a public name a line.
//
// Each page loads without an error, at 1280 and at 400 px, dark and light; nothing but code and wide boxes scrolls
// sideways; links and anchors lead somewhere; text has enough contrast (4.5:1); the switch of the theme stays; and the
// search finds each public name.

import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { findPoorContrast, launch } from './browser.mjs'

const [site, screenshots, names] = process.argv.slice(2)
const mistakes = []
const complain = (text) => { if (!mistakes.includes(text)) mistakes.push(text) }

const types = { '.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.svg': 'image/svg+xml' }
const server = http.createServer((request, response) => {
  const file = path.join(site, decodeURIComponent(new URL(request.url, 'http://x').pathname))
  fs.readFile(file, (error, data) => {
    response.writeHead(error ? 404 : 200, { 'content-type': types[path.extname(file)] || 'text/plain' })
    response.end(error ? 'not there' : data)
  })
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const root = `http://127.0.0.1:${server.address().port}/`

fs.rmSync(screenshots, { recursive: true, force: true })
fs.mkdirSync(screenshots, { recursive: true })
const pages = fs.readdirSync(site, { recursive: true }).filter((it) => it.endsWith('.html')).map(String).sort()

const browser = await launch()

const ids = new Map() // from a page to the ids in it
const links = []
let texts = 0
for (const name of pages) {
  const page = await browser.newPage()
  page.on('console', (message) => {
    if (['error', 'warn'].includes(message.type())) complain(`${name}: console: ${message.text()}`)
  })
  page.on('pageerror', (error) => complain(`${name}: ${error.message}`))
  page.on('requestfailed', (request) => complain(`${name}: ${request.url()} fails`))
  page.on('response', (response) => {
    if (response.status() >= 400) complain(`${name}: ${response.url()}: ${response.status()}`)
  })
  for (const [width, theme] of [[1280, 'light'], [1280, 'dark'], [400, 'light'], [400, 'dark']]) {
    await page.setViewport({ width, height: 900 })
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: theme }])
    if (width === 1280 && theme === 'light') {
      await page.goto(root + name, { waitUntil: 'load' })
      if (new URL(page.url()).pathname.slice(1) !== name) break // leads on to another page
      const found = await page.evaluate(() => ({
        ids: [...document.querySelectorAll('[id]')].map((it) => it.id),
        links: [...document.querySelectorAll('a[href]')].map((it) => it.href),
        twice: [...document.querySelectorAll('[id]')].map((it) => it.id).filter((id, at, all) => all.indexOf(id) !== at),
        broken: [...document.images].filter((it) => it.complete && !it.naturalWidth).map((it) => it.src),
        title: document.title,
      }))
      ids.set(name, new Set(found.ids))
      for (const href of found.links) links.push([name, href])
      for (const id of found.twice) complain(`${name}: two elements have the id ${id}`)
      for (const src of found.broken) complain(`${name}: no image ${src}`)
      if (!found.title) complain(`${name}: no title`)
    }
    const scrolls = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    if (scrolls > 0) complain(`${name}: scrolls sideways by ${scrolls} px at ${width} px`)
    const contrast = await page.evaluate(findPoorContrast)
    texts += contrast.texts
    for (const it of contrast.found) complain(`${name}: poor contrast, ${theme}: ${it}`)
    await page.screenshot({ path: path.join(screenshots, `${path.basename(name, '.html')}-${width}-${theme}.png`) })
  }
  await page.close()
}

for (const [name, href] of links) {
  if (!href.startsWith(root)) continue
  const url = new URL(href)
  let target = decodeURIComponent(url.pathname.slice(1)) || 'index.html'
  if (target.endsWith('/')) target += 'index.html'
  if (!fs.existsSync(path.join(site, target))) complain(`${name}: broken link ${target}`)
  else if (url.hash && ids.has(target) && !ids.get(target).has(decodeURIComponent(url.hash.slice(1)))) {
    complain(`${name}: broken anchor ${target}${url.hash}`)
  }
}

// The search, as a user would: types a name, and finds an entry of the reference among the results.
const wanted = fs.readFileSync(names, 'utf8').split('\n').filter(Boolean)
const page = await browser.newPage()
const first = [...ids.keys()].find((it) => it.includes('reference-waiting')) || [...ids.keys()][0]
await page.goto(root + first)
// A search shows its results at once, when the index is there; an empty list is no answer.
const results_of = (text) => page.evaluate((value) => {
  const box = document.getElementById('search')
  const results = document.getElementById('results')
  box.value = value
  box.dispatchEvent(new Event('input'))
  return results.dataset.shown === value ? [...results.querySelectorAll('a')].map((it) => it.getAttribute('href')) : []
}, text)
await page.focus('#search')
for (const end = Date.now() + 60_000; !(await results_of('registration')).length && Date.now() < end;) {
  await new Promise((resolve) => setTimeout(resolve, 50))
}
let found = 0
for (const name of wanted) {
  const text = name.replace(/^moor::(adapt::)?/, '').replace(/<void(\(.*\))?>/, '')
  const results = await results_of(text)
  const anchor = text.replaceAll('::', '-')
  if (results.some((it) => it.includes('reference-') && (it.endsWith('#' + anchor)))) found++
  else complain(`the search for ${text} finds ${results.slice(0, 3).join(' ') || 'nothing'}`)
}
await page.setViewport({ width: 1280, height: 900 })
await page.screenshot({ path: path.join(screenshots, 'search.png') })

// The switch stays: on the next page, too, and against the preference of the system.
const background = (it) => it.evaluate(() => getComputedStyle(document.body).backgroundColor)
await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }])
const light = await background(page)
await page.click('#theme')
const dark = await background(page)
await page.goto(root + [...ids.keys()].find((it) => it !== first))
if (dark === light || (await background(page)) !== dark) complain('the switch of the theme does not stay')

// On a small screen the list of pages opens.
await page.setViewport({ width: 400, height: 900 })
await page.click('#menu')
if (!(await page.$eval('#navigation', (it) => it.checkVisibility()))) complain('the list of pages does not open at 400 px')
await page.screenshot({ path: path.join(screenshots, 'menu-400.png') })

await browser.close()
server.close()
for (const text of mistakes) console.log(text)
console.log(`${ids.size} pages, ${links.length} links, ${texts} texts measured, ${found} of ${wanted.length} names found; ` +
  `screenshots in ${path.relative(process.cwd(), screenshots)}`)
process.exit(mistakes.length ? 1 : 0)
