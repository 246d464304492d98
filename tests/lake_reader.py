"""Reads a table of the lake with an engine that is not ours, as its users do.

lake_reader.py pyarrow s3://BUCKET/PREFIX    over S3, with AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
lake_reader.py pyarrow FOLDER
lake_reader.py duckdb FOLDER

Each line on stdout is a row: partition, offset, branch, currency, amount, microseconds of `at`, and the folder's log_date and
log_hour (or nothing), with tabs between. A file that is not written as readers like it is an error.
"""

import os
import sys

COLUMNS = ["_partition", "_offset", "branch", "currency", "amount", "at"]


def with_pyarrow(address):
    import pyarrow.dataset
    import pyarrow.fs

    if address.startswith("s3://"):
        system = pyarrow.fs.S3FileSystem(
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=os.environ["AWS_ENDPOINT_URL"].split("://")[1],
            scheme="http",
            region="us-east-1",
        )
        path = address.removeprefix("s3://")
    else:
        system, path = pyarrow.fs.LocalFileSystem(), address
    # What a user writes: the folder, and that its folders are columns. Names with `_` are skipped by default.
    files = pyarrow.dataset.dataset(path, filesystem=system, format="parquet", partitioning="hive")
    for fragment in files.get_fragments():
        check(fragment)
    folders = [name for name in ("log_date", "log_hour") if name in files.schema.names]
    for batch in files.to_batches(columns=COLUMNS + folders):
        columns = [batch.column(name) for name in COLUMNS + folders]
        columns[COLUMNS.index("at")] = columns[COLUMNS.index("at")].cast("int64")
        yield from zip(*(column.to_pylist() for column in columns))


def check(fragment):
    """Each column is compressed by zstd and has its least and greatest value, and texts are in a dictionary."""
    for group in range(fragment.metadata.num_row_groups):
        row_group = fragment.metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            assert column.compression == "ZSTD", (fragment.path, column)
            assert column.is_stats_set and column.statistics.has_min_max, (fragment.path, column)
            assert column.path_in_schema != "branch" or column.has_dictionary_page, (fragment.path, column)


def with_duckdb(folder):
    import duckdb

    files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    names = {column[0] for column in duckdb.sql(f"DESCRIBE SELECT * FROM {files}").fetchall()}
    folders = [name for name in ("log_date", "log_hour") if name in names]
    columns = [f'epoch_us("{name}")' if name == "at" else f'"{name}"' for name in COLUMNS]
    return duckdb.sql(f"SELECT {', '.join(columns + folders)} FROM {files}").fetchall()


for row in {"pyarrow": with_pyarrow, "duckdb": with_duckdb}[sys.argv[1]](sys.argv[2]):
    print(*row, sep="\t")
