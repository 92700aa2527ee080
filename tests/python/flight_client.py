"""Read a polylance server with ADBC's driver for Arrow Flight SQL.

    python tests/python/flight_client.py URL [--token TOKEN] [--password TOKEN] [--ca FILE] TABLE

Prints one JSON object: `{"name", "tables", "columns", "types"}` from the catalogue, `"counted"` the rows of the
table by language, `"hits"` those of a hybrid search, `"vector"` the length of the first vector, `"prepared"` the rows of
a statement that is run twice, `"bound"` those of one with two sets of values, `"empty"` the columns of a statement
without rows, `"plan"` a plan, and `"errors"`: the errors of statements that must be refused, as
`[class, status]`.
"""

import argparse
import json
from pathlib import Path

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flight
import adbc_driver_manager


def refused(cursor, sql: str) -> list:
    try:
        cursor.execute(sql)
        cursor.fetch_arrow_table()
    except adbc_driver_manager.Error as error:
        return [type(error).__name__, adbc_driver_manager.AdbcStatusCode(error.status_code).name]
    return ["nothing", "OK"]


def options(args: argparse.Namespace) -> dict:
    names = adbc_driver_flightsql.DatabaseOptions
    found = {}
    if args.ca:
        found[names.TLS_ROOT_CERTS.value] = Path(args.ca).read_text()
    if args.token:
        found[names.AUTHORIZATION_HEADER.value] = f"Bearer {args.token}"
    if args.password:
        found |= {"username": "anybody", "password": args.password}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("table")
    parser.add_argument("--token")
    parser.add_argument("--password")
    parser.add_argument("--ca")
    args = parser.parse_args()
    with flight.connect(args.url, db_kwargs=options(args), autocommit=True) as connection:
        objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        schemas = objects[0]["catalog_db_schemas"]
        with connection.cursor() as cursor:

            def rows(sql: str) -> list:
                cursor.execute(sql)
                return [list(row) for row in cursor.fetchall()]

            table = args.table
            cursor.execute(f"SELECT embedding FROM {table} LIMIT 1")
            vector = cursor.fetch_arrow_table().column(0)
            cursor.execute(f"SELECT doc_id, text FROM {table} WHERE false")
            empty = cursor.fetch_arrow_table()
            twice = f"SELECT count(*) FROM {table}"
            cursor.adbc_prepare(twice)
            prepared = [rows(twice), rows(twice)]
            query = f"SELECT lang, article FROM vector_search('{table}', ?, 3) WHERE lang = ? ORDER BY article LIMIT ?"
            bound = []
            for values in [("right to education", "fr", 1), ("教育を受ける権利", "nobody's", 1)]:
                cursor.execute(query, values)
                bound.append([list(row) for row in cursor.fetchall()])
            print(json.dumps({
                "name": connection.adbc_get_info()["vendor_name"],
                "tables": [table["table_name"] for schema in schemas for table in schema["db_schema_tables"]],
                "columns": connection.adbc_get_table_schema(table).names,
                "types": connection.adbc_get_table_types(),
                "counted": rows(f"SELECT lang, count(*) FROM {table} GROUP BY 1 ORDER BY 1"),
                "hits": rows(f"SELECT lang, article FROM hybrid_search('{table}', 'right to education', 3)"),
                "vector": vector.type.list_size,
                "prepared": prepared,
                "bound": bound,
                "empty": [empty.num_rows, empty.column_names],
                "plan": str(rows(f"EXPLAIN SELECT * FROM {table}")),
                "errors": {
                    "nothing": refused(cursor, "SELECT nothing FROM " + table),
                    "delete": refused(cursor, "DELETE FROM " + table),
                    "copy": refused(cursor, f"COPY {table} TO '/tmp/never.parquet'"),
                    "file": refused(cursor, "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'"),
                    "boundless": refused(cursor, "SELECT repeat('x', 1000000000)"),
                    "two": refused(cursor, "SELECT 1; SELECT 2"),
                },
            }))


if __name__ == "__main__":
    main()
