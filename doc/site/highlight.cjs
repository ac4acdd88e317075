// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
//
// An extension of Antora: when the site is built, highlights code, and lets long names in tables wrap.

'use strict'

const hljs = require('highlight.js/lib/common')

const block = /(<code class="language-(\w+) hljs" data-lang="\w+">)([\s\S]*?)(<\/code>)/g
const unescape = (html) =>
  html.replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&#(\d+);/g, (_, n) => String.fromCodePoint(n)).replace(/&amp;/g, '&')

function highlight (_, open, language, code, close) {
  if (!hljs.getLanguage(language) || /<\w/.test(code)) return open + code + close // has markup of its own
  return open + hljs.highlight(unescape(code), { language }).value + close
}

// Only long names, or else the browser makes columns so narrow that short names wrap.
const cell = /<td [\s\S]*?<\/td>/g
const name = /<code>([^<]{20,})<\/code>/g
const wrap = (html) => html.replace(name, (_, text) => `<code>${text.replace(/(?:[_/=]|::)(?=.)/g, '$&<wbr>')}</code>`)

module.exports.register = function () {
  this.on('pagesComposed', ({ contentCatalog }) => {
    for (const page of contentCatalog.getPages((it) => it.out)) {
      page.contents = Buffer.from(page.contents.toString().replace(block, highlight).replace(cell, wrap))
    }
  })
}
