"""The grammar of docs/schedules.md as data, for both parsers: that of the package and that of the emulator.

Every rule has examples, and random sentences are derived from it.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

# Expressions that Cloud Scheduler accepts, by rule.
ACCEPTED = {
    "cron-fields": ["* * * * *", "0 9 * * *", "05 09 01 02 03"],
    "cron-numbers": ["59 23 31 12 7", "0 0 1 1 0", "30 4 29 2 *"],
    "cron-names": ["0 0 1 JAN *", "0 0 * DEC SUN", "0 9 * JAN-MAR MON-FRI", "0 0 * 1,FEB SAT,3"],
    "cron-lists": ["0,15,45 * * * *", "0 0 1,15 * *", "0 0 * 1-3,7,10-12 *"],
    "cron-ranges": ["0-30 * * * *", "0 9-17 * * 1-5", "0 0 1-1 * *", "0 0 * * 5-7", "0 0 * * 0-7"],
    "cron-steps": ["*/5 * * * *", "0 0-23/2 * * *", "0 0 */2 * *", "0 0 * */12 *", "*/59 */23 */31 */12 */7"],
    "cron-days": ["0 0 1 * SAT", "0 0 31 2 MON", "0 0 1-7 * 1"],
    "every-minute": ["every minute"],
    "interval": [
        "every 5 minutes",
        "every 30 mins",
        "every 1 minutes",
        "every 1 hours",
        "every 48 hours",
        "every 90 minutes",
        "every 99999 minutes",
    ],
    "interval-on": ["every 60 minutes on mon,wed", "every 2 hours on saturday,sun", "every 30 mins on day"],
    "interval-from": [
        "every 5 minutes from 10:00 to 14:00",
        "every 1 hours from 08:00 to 16:00",
        "every 20 mins from 9:05 to 9:05",
        "every 2 hours from 22:00 to 4:00",
        "every 3 hours from 00:00 to 23:59 on tue,friday",
    ],
    "interval-synchronized": [
        "every 2 hours synchronized",
        "every 24 hours synchronized",
        "every 6 minutes synchronized",
        "every 1 mins synchronized",
        "every 8 hours synchronized on mon",
    ],
    "weekdays": [
        "every day 00:00",
        "every day 9:00",
        "every monday 09:00",
        "every sun,tue,thu 9:00",
        "1st,third tuesday 12:30",
        "fifth fri 23:59",
        "4th day 00:00",
    ],
    "weekdays-of": [
        "first sunday of month 12:00",
        "2nd,3rd tue,wed,thu of feb,aug 13:50",
        "every wed of december 00:00",
        "1st mon,wednesday,thu of sep,oct,nov 17:00",
        "second,5th thursday of january 7:07",
        "every day of may,june 18:00",
    ],
    "dates": [
        "1 of jan,april,july,oct 00:00",
        "1,3,4,7,11,18,29 of jan,jul 12:34",
        "1,8,15,22 of month 09:00",
        "03 of month 12:34",
        "31 of month 00:00",
        "29 of feb 12:00",
        "30,31 of feb,mar 6:00",
    ],
    "dates-ordinal": [
        "1st of month 00:00",
        "2nd,3rd of april 10:00",
        "21st,22nd,23rd of month 0:00",
        "11th,12th,13th of december 11:11",
        "first of month 00:00",
        "thirtyfirst of may 8:00",
        "1,second,3rd of quarter 12:00",
    ],
    "quarter": [
        "1st friday of quarter 9:00",
        "second,4th tue,thursday of 3rd month of quarter 18:30",
        "1 of quarter 00:00",
        "15th of first,2nd month of quarter 4:30",
        "every day of 1st month of quarter 1:00",
    ],
}

# Expressions that Cloud Scheduler refuses, by the rule that they break.
REFUSED = {
    "cron-fields": [
        "",
        "* * * *",
        "* * * * * *",
        "0 0 0 1 1 * 2026",
        "@daily",
        "@every 5m",
        "never",
        " * * * * *",
    ],
    "cron-numbers": [
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 0 *",
        "* * * 13 *",
        "* * * * 8",
        "-1 * * * *",
        "1.5 * * * *",
        "005 * * * *",
        "\u0663 * * * *",
        "+5 * * * *",
    ],
    "cron-names": [
        "0 0 * * mon",
        "0 0 1 Jan *",
        "0 0 * * MONDAY",
        "0 0 1 JANUARY *",
        "MON * * * *",
        "0 0 JAN * *",
        "0 0 * SUN *",
    ],
    "cron-lists": ["1, * * * *", ",1 * * * *", "1,,2 * * * *", "1;2 * * * *"],
    "cron-ranges": [
        "30-10 * * * *",
        "0 22-2 * * *",
        "0 0 * * FRI-SUN",
        "1-2-3 * * * *",
        "*-5 * * * *",
        "5- * * * *",
        "0-60 * * * *",
        "0 0 * * 6-8",
    ],
    "cron-steps": [
        "5/15 * * * *",
        "0 9/2 * * *",
        "*/0 * * * *",
        "*/60 * * * *",
        "* */24 * * *",
        "* * */32 * *",
        "*/ * * * *",
        "*/-5 * * * *",
        "*/5/5 * * * *",
        "/5 * * * *",
        "*/1.5 * * * *",
    ],
    "cron-days": [
        "0 0 L * *",
        "0 0 * * L",
        "0 0 * * 5L",
        "0 0 * * MON#2",
        "0 0 1W * *",
        "0 0 ? * MON",
        "H * * * *",
        "R * * * *",
    ],
    "every-minute": ["every", "minute", "every minutes", "every second"],
    "interval": [
        "every 0 minutes",
        "every -5 minutes",
        "every 5",
        "every 5 seconds",
        "every 2 days",
        "every 5 weeks",
        "every five minutes",
        "every 1.5 hours",
        "5 minutes",
        "every 100000 minutes",
    ],
    "interval-on": [
        "every 60 minutes on",
        "every 60 minutes on holidays",
        "every 2 hours on mon from 9:00 to 10:00",
        "every 2 hours on mon,",
        "every 2 hours on 1",
    ],
    "interval-from": [
        "every 5 minutes from 10:00",
        "every 5 minutes to 14:00",
        "every 5 minutes from 10 to 14",
        "every 5 minutes from 10:00 to 24:00",
        "every 5 minutes from 10:00 until 14:00",
        "every day from 10:00 to 14:00",
    ],
    "interval-synchronized": [
        "every 5 hours synchronized",
        "every 7 minutes synchronized",
        "every 48 hours synchronized",
        "every 2 hours synchronized from 10:00 to 14:00",
        "synchronized",
        "every day synchronized",
    ],
    "weekdays": [
        "every monday",
        "every day",
        "monday 09:00",
        "6th mon 9:00",
        "sixth mon 9:00",
        "every mon day 9:00",
        "every day,mon 9:00",
        "every blue moon",
        "last fri 9:00",
        "every mon 09:00 10:00",
        "1st tuesday",
    ],
    "weekdays-of": [
        "6th mon of jan 9:00",
        "first sunday of 12:00",
        "first sunday of months 12:00",
        "first sunday of 1 12:00",
        "first sunday in jan 12:00",
        "first sunday of month,jan 12:00",
        "0th mon of jan 9:00",
        "1th mon of jan 9:00",
    ],
    "dates": [
        "32 of jan 9:00",
        "0 of jan 9:00",
        "1 of jan",
        "1 jan 9:00",
        "1-5 of jan 9:00",
        "31 of apr 9:00",
        "30 of feb 9:00",
        "30,31 of feb 9:00",
        "31 of apr,june,sep,november 9:00",
        "001 of month 9:00",
    ],
    "dates-ordinal": [
        "1th of month 00:00",
        "2st of month 00:00",
        "11st of month 00:00",
        "32nd of month 00:00",
        "last of month 00:00",
        "thirtysecond of month 0:00",
        "every of month 0:00",
    ],
    "quarter": [
        "1 of quarters 9:00",
        "1 of 4th month of quarter 9:00",
        "1 of quarter,jan 9:00",
        "1 of month of quarter 9:00",
        "1 of 1st quarter 9:00",
    ],
    "time": [
        "every day 25:00",
        "every day 24:00",
        "every day 9:60",
        "every day 9",
        "every day 9:5",
        "every day 9:00:00",
        "every day 9am",
        "every day 009:00",
        "every day 9.00",
    ],
}

# No source says that Cloud Scheduler accepts these, or the sources disagree. Both parsers refuse them.
DOUBTFUL = {
    "every 1 minute": "every minute",  # Refused, by the report of one user.
    "every 1 hour": "every 1 hours",
    "every 5 minute": "every 5 minutes",
    "every 1 min": "every minute",
    "every hour": "every 1 hours",
    "every minute on mon": "every 1 minutes on mon",
    "every 15 minutes synchronized": "every 15 minutes from 00:00 to 23:59",  # Documented as an error.
    "Every Monday 09:00": "every monday 09:00",
    "every mon, wed 09:00": "every mon,wed 09:00",
    "every  5 minutes": "every 5 minutes",
    "every 05 minutes": "every 5 minutes",
    "*  * * * *": "* * * * *",
    "* * * * *\n": "* * * * *",
}

TIME_ZONES = [
    "Etc/UTC",
    "UTC",
    "utc",
    "GMT",
    "Asia/Tokyo",
    "Europe/Zurich",
    "America/Argentina/Buenos_Aires",
    "EST5EDT",
    "Etc/GMT-9",
]
REFUSED_TIME_ZONES = [
    "JST",
    "KST",
    "UTC+9",
    "GMT+09:00",
    "+09:00",
    "Mars/Olympus",
    "Asia/Tokio",
    "Tokyo",
    "Asia",
    "../UTC",
    "/etc/localtime",
    "utc ",
]

DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
NTH = ["first", "1st", "second", "2nd", "third", "3rd", "fourth", "4th", "fifth", "5th"]


def _lists(item: SearchStrategy[str], most: int = 3) -> SearchStrategy[str]:
    return st.lists(item, min_size=1, max_size=most).map(",".join)


def _field(low: int, high: int, names: str = "", most: int | None = None) -> SearchStrategy[str]:
    """Derive a field of a cron expression; numbers outside steps are at most `most`."""
    numbers = st.integers(low, most or high)
    number = numbers.map(str)
    if names:
        number |= st.sampled_from(names.split())
    spans = st.tuples(numbers, numbers).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}")
    steps = st.tuples(spans | st.just("*"), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return _lists(st.just("*") | number | spans | steps)


def cron_expressions() -> SearchStrategy[str]:
    """Derive expressions of five fields; all are due, as no date is later than 29 February."""
    return st.tuples(
        _field(0, 59),
        _field(0, 23),
        _field(1, 31, most=29),
        _field(1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"),
        _field(0, 7, "SUN MON TUE WED THU FRI SAT"),
    ).map(" ".join)


@st.composite
def _time(draw: DrawFn) -> str:
    hour, minute = draw(st.integers(0, 23)), draw(st.integers(0, 59))
    return f"{hour:02}:{minute:02}" if draw(st.booleans()) else f"{hour}:{minute:02}"


def _names(names: list[str]) -> SearchStrategy[str]:
    return _lists(st.sampled_from([*names, *(name[:3] for name in names)]))


def _months() -> SearchStrategy[str]:
    of_quarter = _lists(st.sampled_from(NTH[:6])).map(lambda ordinals: f"{ordinals} month of quarter")
    return st.sampled_from(["month", "quarter"]) | of_quarter | _names(MONTHS)


def _weekdays() -> SearchStrategy[str]:
    return st.just("day") | _names(DAYS)


@st.composite
def intervals(draw: DrawFn) -> str:
    """Derive intervals."""
    unit, scope = draw(st.sampled_from(["minutes", "mins", "hours"])), draw(st.sampled_from(["", "from", "sync"]))
    number = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]) if scope == "sync" else st.integers(1, 99999))
    text = f"every {number} {unit}"
    if scope == "sync":
        text += " synchronized"
    elif scope == "from":
        text += f" from {draw(_time())} to {draw(_time())}"
    return f"{text} on {draw(_weekdays())}" if draw(st.booleans()) else text


@st.composite
def dates(draw: DrawFn) -> str:
    """Derive schedules of certain days; every month has one of them."""
    number = st.integers(1, 28).map(str) | st.integers(1, 9).map("{:02}".format)
    ordinal = st.sampled_from([*NTH, "10th", "11th", "12th", "13th", "21st", "22nd", "23rd", "twentyeighth"])
    return f"{draw(_lists(number | ordinal))} of {draw(_months())} {draw(_time())}"


@st.composite
def weekdays(draw: DrawFn) -> str:
    """Derive schedules of days of the week."""
    of = f" of {draw(_months())}" if draw(st.booleans()) else ""
    return f"{draw(st.just('every') | _lists(st.sampled_from(NTH)))} {draw(_weekdays())}{of} {draw(_time())}"


def english_expressions() -> SearchStrategy[str]:
    """Derive English-like schedules."""
    return st.just("every minute") | intervals() | weekdays() | dates()
