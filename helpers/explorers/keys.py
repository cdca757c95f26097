"""What ipywidgets leaves out for whoever works without a mouse or without seeing, mended in the page itself.

There a slider has no name and tells its position in place of its value, a toggle does not tell whether it is pressed,
and hovering over a label shows "null". And JupyterLab hears keys before a control does: the down arrow in a dropdown
goes to the next cell, `a` on a button makes a new one. No trait of a widget reaches any of this, so a script does. It
arrives in an `HTML` widget, as the handler of an image that cannot be loaded; where a page forbids that, nothing else
changes.
"""

from __future__ import annotations

import html

SCRIPT = """
(function mend(image, tries) {
  const box = image.closest('.widget-vbox');
  if (!box) return tries && setTimeout(mend, 50, image, tries - 1);  // not yet on the page
  const set = (one, name, value) => one && one.getAttribute(name) !== value && one.setAttribute(name, value);
  const text = (one, inside) => one.querySelector(inside)?.textContent.trim() ?? '';
  const label = () => {
    for (const slider of box.querySelectorAll('.widget-slider')) {
      const handle = slider.querySelector('[role=slider]'), typed = slider.querySelector('.widget-readout');
      set(handle, 'aria-label', text(slider, '.widget-label'));
      set(handle, 'aria-valuetext', text(slider, '.widget-readout'));
      set(typed, 'role', 'textbox');
      set(typed, 'aria-label', text(slider, '.widget-label') + ', typed');
    }
    for (const group of box.querySelectorAll('.widget-toggle-buttons')) {
      set(group, 'role', 'group');
      set(group, 'aria-label', text(group, '.widget-label'));
    }
    for (const one of box.querySelectorAll('[title="null"]')) one.removeAttribute('title');
    for (const button of box.querySelectorAll('.widget-toggle-button')) {
      set(button, 'aria-pressed', String(button.classList.contains('mod-active')));
      if (button.title) set(button, 'aria-label', button.title);
    }
  };
  new MutationObserver(label).observe(box, {subtree: true, childList: true, characterData: true, attributes: true,
                                            attributeFilter: ['class', 'title', 'aria-valuetext']});
  label();
  const ours = event => event.target.toggleAttribute('data-lm-suppress-shortcuts', !event.ctrlKey && !event.metaKey);
  for (const kind of ['focusin', 'keydown', 'keyup']) box.addEventListener(kind, ours);  // Ctrl+S still saves
})(this, 200)"""

MENDED = f'<img src="data:," alt="" style="display:none" onerror="{html.escape(SCRIPT)}">'
