// Of what a search finds the lessons come first, the modules' objects behind them. The other figures are Sphinx's own.
var Scorer = {
  score: ([docname, title, anchor, descr, score]) => score + (docname.startsWith("notebooks/") ? 100 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
