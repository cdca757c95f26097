"""`make figures`."""

from helpers.drawings import draw_all

draw_all()
