// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The switch between dark and light, which stays; and the list of pages on a small screen.
(() => {
  'use strict'

  const root = document.documentElement
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches

  document.getElementById('theme').addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark'
    try {
      localStorage.setItem('moor-theme', root.dataset.theme)
    } catch (e) {
      // No storage: the switch lasts as long as the page.
    }
  })

  const menu = document.getElementById('menu')
  menu.addEventListener('click', () => {
    const isOpen = document.body.classList.toggle('menu-open')
    menu.setAttribute('aria-expanded', isOpen)
  })

  const current = document.querySelector('#navigation [aria-current]')
  if (current) current.scrollIntoView({ block: 'nearest' })
})()
