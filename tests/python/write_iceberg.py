"""Change an Iceberg table with PyIceberg, and print the address of its folder.

    python tests/python/write_iceberg.py WAREHOUSE CATALOG STEP…

WAREHOUSE is a folder or an `s3://` address, CATALOG a database file. The steps are:

    create            a table with the columns id, body and lang, in folders `language=…`
    append:LANG:ID…   a commit with a row for each id, all of one language
    delete:ID         a commit that rewrites the data file with the row
    mask:ID:LANG      a commit with two delete files: the position of a row, and an equality that all rows of a
                      language fulfil
    rename            a commit that names the column body `content`, without new data
"""

import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestWriterV2
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

NAME = "texts.pages"
SCHEMA = pa.schema([("id", pa.string()), ("body", pa.string()), ("lang", pa.string())])
# The ids that the format reserves for the columns of a file with positions.
FILE_PATH, POSITION = 2147483546, 2147483545


class DeletesWriter(ManifestWriterV2):
    """Writes a manifest of delete files, which PyIceberg only reads."""

    def content(self):
        return ManifestContent.DELETES

    @property
    def _meta(self):
        return {**super()._meta, "content": "deletes"}


class AppendDeletes(_FastAppendFiles):
    """Appends delete files as other engines do."""

    def new_manifest_writer(self, spec):
        output = self.new_manifest_output()
        schema = self._transaction.table_metadata.schema()
        return DeletesWriter(spec, schema, output, self._snapshot_id, self._compression)


def column(name, data_type, field_id):
    return pa.field(name, data_type, nullable=False, metadata={"PARQUET:field_id": str(field_id)})


def delete_file(table, name, content, rows, partition, equality_ids):
    path = f"{table.location()}/data/{name}.parquet"
    with table.io.new_output(path).create() as output:
        pq.write_table(rows, output)
    return DataFile.from_args(
        content=content,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        record_count=rows.num_rows,
        file_size_in_bytes=len(table.io.new_input(path)),
        equality_ids=equality_ids,
        spec_id=table.spec().spec_id,
    )


def mask(table, row_id, lang):
    """Deletes a row by its position and rows by their language, as engines with merge-on-read do."""
    for task in table.scan().plan_files():
        with table.io.new_input(task.file.file_path).open() as data:
            ids = pq.read_table(data)["id"].to_pylist()
        if row_id in ids:
            data_file, position = task.file, ids.index(row_id)
    columns = pa.schema([column("file_path", pa.string(), FILE_PATH), column("pos", pa.int64(), POSITION)])
    rows = pa.Table.from_pylist([{"file_path": data_file.file_path, "pos": position}], schema=columns)
    by_position = delete_file(table, "positions", DataFileContent.POSITION_DELETES, rows, data_file.partition, None)
    field = table.schema().find_field("lang")
    rows = pa.Table.from_pylist([{"lang": lang}], schema=pa.schema([column("lang", pa.string(), field.field_id)]))
    ids = [field.field_id]
    by_equality = delete_file(table, "equal", DataFileContent.EQUALITY_DELETES, rows, Record(lang), ids)
    with table.transaction() as transaction:
        append = AppendDeletes(Operation.OVERWRITE, transaction, table.io)
        append.append_data_file(by_position).append_data_file(by_equality).commit()


def main():
    warehouse, database, *steps = sys.argv[1:]
    # PyIceberg has no other way to an S3 server of one's own.
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    catalog = SqlCatalog("tests", uri=f"sqlite:///{database}", warehouse=warehouse, **{"s3.endpoint": endpoint})
    for step in steps:
        action, *arguments = step.split(":")
        if action == "create":
            catalog.create_namespace("texts")
            table = catalog.create_table(NAME, schema=SCHEMA)
            with table.update_spec() as update:
                update.add_field("lang", IdentityTransform(), "language")
        else:
            table = catalog.load_table(NAME)
        if action == "append":
            lang, *ids = arguments
            table.append(pa.Table.from_pylist([{"id": i, "body": f"text {i}", "lang": lang} for i in ids], SCHEMA))
        elif action == "delete":
            table.delete(f"id == '{arguments[0]}'")
        elif action == "mask":
            mask(table, *arguments)
        elif action == "rename":
            with table.update_schema() as update:
                update.rename_column("body", "content")
    print(catalog.load_table(NAME).location())


main()
