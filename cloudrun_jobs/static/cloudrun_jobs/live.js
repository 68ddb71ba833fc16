// Keeps the marked parts of a page up to date while it is open.
"use strict";
