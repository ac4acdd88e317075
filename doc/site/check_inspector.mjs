// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
//
// Checks the page of the inspector in Chromium: node check_inspector.mjs SCRIPT SCREENSHOTS. SCRIPT is example/run.sh,
// which this program starts with --inspect.
//
// The descriptors of the tour appear with what they are; a click on a column sorts, and a second click reverses; the
// page updates itself; operations that wait for too long are marked in text and in colour; nothing scrolls sideways
// but the table; text has enough contrast in both themes; and when the tour has ended after Ctrl-C, the page says so.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { findPoorContrast, launch } from './browser.mjs'

const [script, screenshots] = process.argv.slice(2)
const patience = { timeout: 60_000 }
const mistakes = []
const complain = (text) => { if (!mistakes.includes(text)) mistakes.push(text) }

// A group of processes of its own, as in a terminal: Ctrl-C reaches the script and the tour.
const tour = spawn(script, ['--inspect'], { detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
let printed = ''
let noted = ''
tour.stdout.on('data', (data) => { printed += data })
const ended = new Promise((resolve) => tour.on('close', resolve))
const url = await new Promise((resolve) => {
  tour.stderr.on('data', (data) => {
    noted += data
    const found = noted.match(/http:\S+\n/) // the whole line is there
    if (found) resolve(found[0].trim())
  })
  ended.then(() => resolve())
})
if (!url) {
  console.log(`${script} --inspect ends without an address:\n${noted}`)
  process.exit(1)
}

const browser = await launch()
let isOver = false // then requests fail, as they should
let found = 0
try {
  const page = await browser.newPage()
  page.setDefaultNavigationTimeout(patience.timeout)
  page.on('console', (message) => {
    if (['error', 'warn'].includes(message.type()) && !isOver) complain(`console: ${message.text()}`)
  })
  page.on('pageerror', (error) => complain(error.message))
  page.on('response', (response) => {
    if (response.status() >= 400) complain(`${response.url()}: ${response.status()}`)
  })
  await page.setViewport({ width: 1280, height: 900 })
  await page.goto(url, { waitUntil: 'load' })
  await page.waitForSelector('#rows tr', patience)

  // The table as a user sees it: rows of texts, by the title of the column.
  const table = () => page.evaluate(() => {
    const titles = [...document.querySelectorAll('#head th')].map((it) => it.textContent)
    return [...document.querySelectorAll('#rows tr')].map((row) =>
      Object.fromEntries([...row.children].map((cell, at) => [titles[at], cell.textContent])))
  })
  const waiting = {
    inotify: 'readable', '[timerfd]': 'readable', '[signalfd]': 'readable', '[eventfd]': 'readable', 'socket:[': 'readable',
  }
  const rows = await table()
  for (const [what, interest] of Object.entries(waiting)) {
    const row = rows.find((it) => it['What it is'].includes(what) && it['Waiting for'].includes(interest))
    if (row) found++
    else complain(`no row of ${what}, waiting for ${interest}`)
  }
  for (const [what, name] of [['inotify', 'new files'], ['[timerfd]', 'ticks']]) {
    if (!rows.some((it) => it['What it is'].includes(what) && it.Name === name)) complain(`${what} is not named ${name}`)
  }
  for (const what of ['pipe:[', '/dev/null']) { // which have their events already
    if (rows.some((it) => it['What it is'].includes(what))) found++
    else complain(`no row of ${what}`)
  }
  if (!/tour, process \d+, .*: \d+ registered/.test(await page.$eval('#program', (it) => it.textContent))) {
    complain('the page does not name the program')
  }
  if (!(await page.$eval('#loop', (it) => it.textContent.includes('turns')))) complain('the loop seems not to turn')

  // Sorting. The names of the kernel sort as texts, the descriptors as numbers.
  const click = (title) => page.evaluate((wanted) => {
    [...document.querySelectorAll('#head button')].find((it) => it.textContent === wanted).click()
    return [...document.querySelectorAll('#head th')].filter((it) => it.ariaSort)
      .map((it) => `${it.textContent} ${it.ariaSort}`).join()
  }, title)
  const order = {
    'What it is': (a, b) => a.localeCompare(b, undefined, { numeric: true }),
    Descriptor: (a, b) => a - b,
  }
  for (const [title, compare] of Object.entries(order)) {
    for (const [direction, sign] of [['ascending', 1], ['descending', -1]]) {
      const sorted = await click(title)
      if (sorted !== `${title} ${direction}`) complain(`after a click on ${title}, sorted is: ${sorted}`)
      const shown = (await table()).map((it) => it[title])
      if (shown.join() !== shown.slice().sort((a, b) => sign * compare(a, b)).join()) {
        complain(`${title} is not ${direction}: ${shown.join()}`)
      }
      if (new Set(shown).size < 3) complain(`${title} has too few values to be sorted`)
    }
  }

  // The page updates itself, and keeps the order.
  const pending = () => page.evaluate(() => {
    const at = [...document.querySelectorAll('#head th')].findIndex((it) => it.textContent === 'Pending, s')
    return Math.max(...[...document.querySelectorAll('#rows tr')].map((row) => Number(row.children[at].textContent)))
  })
  const before = await pending()
  for (const end = Date.now() + patience.timeout; !((await pending()) > before + 1);) {
    if (Date.now() > end) {
      complain(`the pending seconds stay at ${before}`)
      break
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  if (!(await page.$eval('#head th', (it) => it.ariaSort === 'descending'))) complain('an update forgets the order')

  // After 10 s the operations are marked, in text and in colour.
  await page.waitForSelector('tr.stuck', patience).catch(() => complain('nothing is marked as stuck'))
  const marked = await page.evaluate(() => {
    const at = [...document.querySelectorAll('#head th')].findIndex((it) => it.textContent === 'State')
    return [...document.querySelectorAll('#rows tr')].map((row) => ({
      text: row.children[at].textContent, stuck: row.classList.contains('stuck'),
      color: getComputedStyle(row.children[at]).backgroundColor,
    }))
  })
  const colors = (stuck) => new Set(marked.filter((it) => it.stuck === stuck).map((it) => it.color))
  if (!marked.every((it) => (it.text === 'stuck') === it.stuck)) complain('the text says something else than the colour')
  if (colors(true).size !== 1 || colors(false).size !== 1 || [...colors(true)][0] === [...colors(false)][0]) {
    complain('rows that are stuck have no colour of their own')
  }

  const look = async (name) => {
    for (const width of [1280, 400]) {
      for (const theme of ['light', 'dark']) {
        await page.setViewport({ width, height: 900 })
        await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: theme }])
        const scrolls = await page.evaluate(() => Math.max(
          document.documentElement.scrollWidth - document.documentElement.clientWidth,
          document.body.scrollWidth - document.body.clientWidth))
        if (scrolls > 0) complain(`${name} scrolls sideways by ${scrolls} px at ${width} px`)
        const contrast = await page.evaluate(findPoorContrast)
        if (contrast.texts < 10) complain(`${name} has only ${contrast.texts} texts`)
        for (const it of contrast.found) complain(`${name}: poor contrast, ${theme}: ${it}`)
        await page.screenshot({ path: path.join(screenshots, `${name}-${width}-${theme}.png`) })
      }
    }
  }
  fs.mkdirSync(screenshots, { recursive: true })
  await look('inspector')

  // Ctrl-C: the tour goes on and ends.
  isOver = true
  process.kill(-tour.pid, 'SIGINT')
  const status = await ended
  if (status !== 0 || !printed.includes('All came as expected.')) complain(`the tour ends with ${status}:\n${printed}`)
  await page.waitForFunction(() => document.getElementById('lost').textContent.includes('does not answer'), patience)
    .catch(() => complain('the page does not say that the program has ended'))
  if (await page.$eval('#loop', (it) => it.textContent)) complain('the page still speaks of the loop')
  await look('inspector-ended')
} finally {
  try { process.kill(-tour.pid, 'SIGKILL') } catch { } // if it is still there
  await browser.close()
}
for (const text of mistakes) console.log(text)
console.log(`the tour's page: ${found} descriptors found; screenshots in ${path.relative(process.cwd(), screenshots)}`)
process.exit(mistakes.length ? 1 : 0)
