// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The search box. The index is loaded when the box is used for the first time.
(() => {
  'use strict'

  const { root, ui } = document.currentScript.dataset
  const box = document.getElementById('search')
  const results = document.getElementById('results')
  let search // from a text to a list of results
  let loading = false

  // The index calls this function.
  window.antoraSearch = {
    initSearch (lunr, { index, store }) {
      // lunr 2.3.9 compares states by this text, in which the digit of a word and the number of a state would run
      // together: then the query finds words which the index does not have, and throws.
      lunr.TokenSet.prototype.toString = function () {
        if (this._str) return this._str
        const edges = Object.keys(this.edges).sort().map((label) => label + this.edges[label].id + ',')
        return (this.final ? '1' : '0') + edges.join('')
      }
      const loaded = lunr.Index.load(index)
      search = (text) => find(lunr, loaded, store.documents, text)
      show()
    },
  }

  function load () {
    if (loading) return
    loading = true
    const add = (src) => {
      const script = document.createElement('script')
      script.src = src
      script.async = false // in this order
      document.head.append(script)
    }
    add(ui + '/js/vendor/lunr.js')
    add(root + '/search-index.js')
  }

  function find (lunr, index, documents, text) {
    const words = text.toLowerCase().split(/[\s:()<>,]+/).filter(Boolean)
    if (!words.length) return []
    const entry = (page, section) => ({
      href: root + page.url + (section ? '#' + section.hash : ''),
      title: section ? section.title : page.title,
      page: page.title,
    })
    // First the sections whose title begins with the name: the index leaves out some words of English.
    const name = words[words.length - 1]
    const exact = Object.values(documents).flatMap((page) => page.titles.filter(({ title }) => {
      const parts = title.toLowerCase().split(/\s+/)
      return parts[0] === name && words.every((word) => parts.includes(word))
    }).map((section) => entry(page, section)))
    const found = index.query((query) => {
      for (const word of words) {
        query.term(word, { boost: 20 })
        query.term(word, { boost: 2, usePipeline: false, wildcard: lunr.Query.wildcard.TRAILING })
      }
    }).slice(0, 16).map(({ ref }) => {
      const [id, section] = ref.split('-').map(Number)
      return entry(documents[id], documents[id].titles.find((it) => it.id === section))
    })
    const links = new Map([...exact.slice(0, 16), ...found].map((it) => [it.href, it]))
    return [...links.values()].slice(0, 24)
  }

  function show () {
    const text = box.value.trim()
    results.hidden = !text
    if (!text || !search) return
    const links = search(text).map(({ href, title, page }) => {
      const link = document.createElement('a')
      const where = document.createElement('small')
      link.href = href
      link.textContent = title
      where.textContent = page
      link.append(where)
      return link
    })
    results.replaceChildren(...(links.length ? links : ['Nothing found.']))
    results.dataset.shown = text
  }

  box.addEventListener('focus', load)
  box.addEventListener('input', () => { load(); show() })
  document.addEventListener('keydown', (event) => {
    const links = [...results.querySelectorAll('a')]
    const at = links.indexOf(document.activeElement)
    if (event.key === '/' && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) {
      event.preventDefault()
      box.focus()
    } else if (event.key === 'Escape') {
      results.hidden = true
    } else if (!results.hidden && links.length && (at >= 0 || document.activeElement === box)) {
      if (event.key === 'Enter' && at < 0) links[0].click()
      if (event.key === 'ArrowDown') links[Math.min(at + 1, links.length - 1)].focus()
      if (event.key === 'ArrowUp') (links[at - 1] || box).focus()
      if (event.key.startsWith('Arrow')) event.preventDefault()
    }
  })
  results.addEventListener('click', () => { results.hidden = true })
  document.addEventListener('click', ({ target }) => {
    if (!target.closest('.search')) results.hidden = true
  })
})()
