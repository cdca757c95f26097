// What scrolls sideways can be reached by the keyboard.
function reach() {
  for (const box of document.querySelectorAll("pre, .table-wrapper, .output, .output [style*='overflow'], mjx-container[display]"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reach));
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
