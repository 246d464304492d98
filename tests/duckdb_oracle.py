"""An engine that is not ours: DuckDB behind lines of JSON.

Each line on stdin is {"setup": [statement…], "query": statement}; the answer on stdout is {"rows": [[text or null…]…]} or
{"error": message}. Everything that one line made is forgotten before the next.
"""

import json
import sys

import duckdb

MACROS = [
    # A decimal's digits without its decimal point.
    "CREATE MACRO unscaled(d) AS CAST(replace(CAST(d AS VARCHAR), '.', '') AS HUGEINT)",
    # n / 10^scale as text.
    "CREATE MACRO padded(n, scale) AS lpad(CAST(abs(n) AS VARCHAR), CAST(greatest(length(CAST(abs(n) AS VARCHAR)), scale + 1) AS INTEGER), '0')",
    "CREATE MACRO decimal_text(n, scale) AS (CASE WHEN n < 0 THEN '-' ELSE '' END) || "
    "CASE WHEN scale = 0 THEN padded(n, 0) ELSE left(padded(n, scale), -scale) || '.' || right(padded(n, scale), scale) END",
    "CREATE MACRO finite(x) AS CASE WHEN isfinite(x) THEN x END",
]


def answer(connection, request):
    for statement in request["setup"]:
        connection.execute(statement)
    return {"rows": connection.execute(request["query"]).fetchall()}


def main():
    connection = duckdb.connect(config={"threads": 1})
    for macro in MACROS:
        connection.execute(macro)
    for line in sys.stdin:
        connection.execute("BEGIN")
        try:
            result = answer(connection, json.loads(line))
        except duckdb.Error as error:
            result = {"error": str(error)}
        connection.execute("ROLLBACK")
        print(json.dumps(result), flush=True)


main()
