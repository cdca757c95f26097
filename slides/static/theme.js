// ?dark and ?light choose; without them the system does.
const wanted = new URLSearchParams(location.search);
const dark = wanted.has("dark") || (!wanted.has("light") && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.classList.toggle("dark", dark && !wanted.has("print-pdf"));
