"""What is written on the painted objects of `make_scenes`; all of it invented."""

from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


HEADLINES = _split(
    "MIDNIGHT|HARVEST|RIVER|COPPER|NORTHERN|VELVET|PAPER|GOLDEN|SILENT|ORCHARD|WINTER|ELECTRIC|HIDDEN|CORAL|LANTERN|"
    "MARBLE|COASTAL|CRIMSON|HOLLOW|WANDERING|AMBER|BROKEN|SUMMER|PILGRIM|THUNDER|VIOLET|GRANITE|FEATHER|COMET|SALT"
)
EVENTS = _split(
    "JAZZ FESTIVAL|NIGHT MARKET|FILM WEEK|BOOK FAIR|REGATTA|OPERA|CHESS OPEN|MARATHON|GARDEN SHOW|CIRCUS|BALLET|"
    "LIGHT PARADE|FOLK DANCE|SCIENCE DAY|KITE FEST|DRAMA CLUB"
)
MONTHS = _split("JAN|FEB|MARCH|APRIL|MAY|JUNE|JULY|AUG|SEPT|OCT|NOV|DEC")
PLACES = _split(
    "HARBOUR|OLD TOWN|MUSEUM|STATION|CASTLE|LIGHTHOUSE|BOTANIC GARDEN|LIBRARY|MARKET HALL|FERRY|OBSERVATORY|MILL LANE|"
    "RIVERSIDE|TOWN HALL|QUARRY|VINEYARD|ST. ANN|ABBEY|BRIDGE ST.|HIGH MOOR|ZOO|STADIUM|WINDMILL|CHAPEL HILL"
)
PRODUCTS = _split(
    "OAT CLUSTERS|GREEN TEA|COCOA DRINK|RICE CRACKERS|BERRY MUESLI|BLACK COFFEE|GINGER BITES|LENTIL SOUP|CORN FLAKES|"
    "LEMON WAFERS|ALMOND BARS|MINT TEA|BARLEY MIX|FIG COOKIES"
)
BRANDS = _split("Morrow|Tilda|Basker|Ondine|Fenwick|Lumen|Juno|Peregrin|Halden|Solvi|Quill|Brio|Marlowe|Tansy")
CLAIMS = _split("NEW RECIPE|WHOLE GRAIN|FAMILY SIZE|ORGANIC|40% MORE|NO SUGAR")
NUTRIENTS = _split("PER 100 g|Energy|Fat|Sugars|Fibre|Protein|Salt|Iron|Zinc")
TITLES = _split(
    "The Glass Ferry|A Map of Rain|Nine Small Doors|The Salt Road|Under Linden Trees|The Clockmaker|"
    "Letters to the Tide|The Last Orchard|Paper Mountains|A House of Wind|The Quiet Engine|Birds of Passage|"
    "The Ninth Island|Winter Algebra"
)
GENRES = _split("A NOVEL|STORIES|A MEMOIR|POEMS|ESSAYS")
AUTHORS = _split(
    "Ida Falkner|Tomas Verrill|June Okonjo|R. M. Castell|Lena Brandt|Hugo Ferrant|Mina Sorel|E. J. Whitlow|"
    "Anselm Roy|Petra Lindqvist|Omar Tavares|Clara Nishi"
)
SMALL_PRINT = _split(
    "doors|open|at|the|main|gate|tickets|from|nine|until|late|free|entry|for|children|under|twelve|bring|your|own|"
    "cup|all|profits|go|to|the|town|orchestra|programme|may|change|see|board|next|to|the|south|stairs"
)
