// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
//
// What the checks in Chromium share.

import fs from 'node:fs'
import puppeteer from 'puppeteer-core'

export const launch = () => puppeteer.launch({
  executablePath: ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(fs.existsSync),
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
})

// In the page: texts whose contrast with the colour behind is too low.
export function findPoorContrast () {
  const channels = (text) => {
    const m = text.match(/^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/)
    return m ? [+m[1], +m[2], +m[3], m[4] === undefined ? 1 : +m[4]] : undefined
  }
  const luminance = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = channels(getComputedStyle(e).backgroundColor)
      if (color && color[3] === 1) return color
    }
    return [255, 255, 255, 1]
  }
  const found = new Set()
  const seen = new Set()
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement
    if (!walker.currentNode.data.trim() || seen.has(element) || !element.checkVisibility?.()) continue
    seen.add(element)
    const color = channels(getComputedStyle(element).color)
    if (!color) continue
    const [a, b] = [luminance(color), luminance(behind(element))].sort((x, y) => y - x)
    const ratio = (a + 0.05) / (b + 0.05)
    if (ratio < 4.5) found.add(`${element.tagName.toLowerCase()}.${element.className}: ${ratio.toFixed(1)}`)
  }
  return { found: [...found], texts: seen.size }
}
