//! The SQL types, as ODBC and JDBC describe them.

use arrow::array::RecordBatch;
use arrow_flight::{
    error::FlightError,
    sql::{
        CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode,
        metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder},
    },
};

use super::catalog::CatalogCommand;
use crate::tables::Snapshot;

impl CatalogCommand for CommandGetXdbcTypeInfo {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        self.into_builder(&types()?).build()
    }
}

/// The largest size of a text or a binary value.
const MAX_COLUMN_SIZE: i32 = i32::MAX;

fn types() -> Result<XdbcTypeInfoData, FlightError> {
    use XdbcDataType::{
        XdbcBigint, XdbcBit, XdbcDate, XdbcDecimal, XdbcDouble, XdbcInteger, XdbcReal, XdbcSmallint, XdbcTime,
        XdbcTimestamp, XdbcTinyint, XdbcVarbinary, XdbcVarchar,
    };
    let mut types = XdbcTypeInfoDataBuilder::new();
    types.append(plain("BOOLEAN", XdbcBit, 1));
    for (name, data_type, digits, unsigned) in [
        ("TINYINT", XdbcTinyint, 3, false),
        ("TINYINT UNSIGNED", XdbcTinyint, 3, true),
        ("SMALLINT", XdbcSmallint, 5, false),
        ("SMALLINT UNSIGNED", XdbcSmallint, 5, true),
        ("INT", XdbcInteger, 10, false),
        ("INT UNSIGNED", XdbcInteger, 10, true),
        ("BIGINT", XdbcBigint, 19, false),
        ("BIGINT UNSIGNED", XdbcBigint, 20, true),
    ] {
        types.append(XdbcTypeInfo { unsigned_attribute: Some(unsigned), ..number(name, data_type, digits, 10) });
    }
    types.append(number("REAL", XdbcReal, 24, 2));
    types.append(number("DOUBLE", XdbcDouble, 53, 2));
    let decimal = number("DECIMAL", XdbcDecimal, 76, 10);
    let parameters = Some(vec!["precision".to_owned(), "scale".to_owned()]);
    types.append(XdbcTypeInfo {
        create_params: parameters,
        minimum_scale: Some(0),
        maximum_scale: Some(76),
        unsigned_attribute: Some(false),
        ..decimal
    });
    types.append(XdbcTypeInfo {
        case_sensitive: true,
        searchable: Searchable::Full,
        ..quoted("VARCHAR", XdbcVarchar, MAX_COLUMN_SIZE, "'")
    });
    types.append(quoted("VARBINARY", XdbcVarbinary, MAX_COLUMN_SIZE, "X'"));
    let time = |name, data_type, size, subcode| XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(subcode),
        ..quoted(name, data_type, size, &format!("{name} '"))
    };
    types.append(time("DATE", XdbcDate, 10, XdbcDatetimeSubcode::XdbcSubcodeYear));
    types.append(time("TIME", XdbcTime, 18, XdbcDatetimeSubcode::XdbcSubcodeTime));
    types.append(time("TIMESTAMP", XdbcTimestamp, 29, XdbcDatetimeSubcode::XdbcSubcodeTimestamp));
    types.build()
}

fn plain(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        local_type_name: Some(name.to_owned()),
        data_type,
        sql_data_type: data_type,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Basic,
        auto_increment: Some(false),
        ..XdbcTypeInfo::default()
    }
}

fn number(name: &str, data_type: XdbcDataType, size: i32, radix: i32) -> XdbcTypeInfo {
    XdbcTypeInfo { num_prec_radix: Some(radix), unsigned_attribute: Some(false), ..plain(name, data_type, size) }
}

fn quoted(name: &str, data_type: XdbcDataType, size: i32, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..plain(name, data_type, size)
    }
}
