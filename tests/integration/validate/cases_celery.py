# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  (a table: a case is a line)
"""Brokers, result backends and transports that cannot be used, as far as that is known offline."""

from __future__ import annotations

from .cases_options import CELERY, FILES, LOCAL, celery, of
from .harness import Case, airflow_cfg, case

BROKER = "celery.broker_url"
RESULTS = "celery.result_backend"
ESCAPED = {"remedy": "Write a / in a user name or password as %2F"}


def broker(name: str, wrong: str, found: str, mended: str, remedy: str = "", **more: object) -> Case:
    return celery(name, '{"celery": {"broker_url": "<>"}}', wrong, BROKER, found, mended, remedy, **more)


def results(name: str, wrong: str, found: str, mended: str, remedy: str = "", **more: object) -> Case:
    return celery(name, '{"celery": {"result_backend": "<>"}}', wrong, RESULTS, found, mended, remedy, **more)


def transport(
    name: str, config: str, wrong: str, option: str, found: str, mended: str, remedy: str = "", **more: object
) -> Case:
    where = f"celery_broker_transport_options.{option}"
    return celery(
        name,
        f'{{"celery_broker_transport_options": {{{config}}}}}',
        wrong,
        where,
        found,
        mended,
        remedy,
        **more,
    )


def tls(name: str, wrong: str, where: str, found: str, mended: str, remedy: str = "") -> Case:
    config = '{"celery": {"ssl_active": true, "ssl_mutual_tls": false<>}}'
    return celery(name, config, wrong, where, found, mended, remedy)


BROKERS = [
    broker("no URL", "localhost", "is not a URL", "$e"),
    broker("no URL, though there is a mark in it", "u:hunter2@redis://h:6379/0", "is not a URL", "$e"),
    broker("mode of TLS that does not exist", "rediss://h:6379/0?ssl_cert_reqs=hunter2", "an ssl_cert_reqs that does not exist", "rediss://h:6379/0?ssl_cert_reqs=CERT_REQUIRED", "Write ssl_cert_reqs=CERT_REQUIRED"),
    case("overridden by what is no URL", r'\"broker_url\": \"hunter2\"', "[celery] broker_url", "overridden in extra_celery_config or celery_config_options by one that is not a URL", r'\"broker_url\": \"$e\"', cfg=of(CELERY, '{"celery": {"extra_celery_config": "{<>}"}}'), files=FILES),
    broker("variable that is not set", "redis://:${REDIS_PW_NOPE}@broker/0", "has a placeholder in it", "redis://broker/0", "Write what belongs there"),
    broker("text to be replaced", "redis://:<password>@broker/0", "has a placeholder in it", "redis://broker/0", "Write what belongs there"),
    broker("slash in the password", "redis://:hunter2/x@h:6379/0", "ends them there", "redis://:hunter2%%2Fx@h:6379/0", **ESCAPED),
    broker("hash in the password", "redis://:hunter2#x@h:6379/0", "ends them there", "redis://:hunter2%%23x@h:6379/0", **ESCAPED),
    broker("question mark in the password", "amqp://u:hunter2?x@h//", "ends them there", "amqp://u:hunter2%%3Fx@h//", **ESCAPED),
    broker("digits before the slash", "redis://:12/x@h:6379/0", "ends them there", "redis://:12%%2Fx@h:6379/0", **ESCAPED),
    broker("port in words", "redis://h:port/0", "port that is not a number", "$e"),
    broker("port out of range", "redis://h:637900/0", "port that is not a number from 0 to 65535", "$e"),
    broker("second of several", "amqp://u:p@a:5672//;amqp://u:p@b:x//", "port that is not a number", "$e"),
    broker("blank in it", "redis://h: 6379/0", "a blank or a line break", "redis://h:6379/0", "Remove it"),
    broker("transport misspelt", "redi://h:6379/0", "which is no transport", "$1://h:6379/0", "redis"),
    broker("transport of nobody", "zeromq://h", "which is no transport", "redis://h:6379/0", "Use redis"),
    broker("typo behind a plus", "redis+sock://h:6379/0", "which is no transport", "$1:///tmp/socket", "Did you mean"),
    broker("TLS behind a plus", "redis+tls://:hunter2@h:6379/0", "which is no transport", "$1://:hunter2@h:6379/0", 'Did you mean "rediss"'),
    broker("socket file on a host", "redis+socket://:hunter2@h:6379/0", "has a host", "redis://:hunter2@h:6379/0", "Write redis+socket:///path"),
    broker("name of the server, RabbitMQ", "rabbitmq://u:hunter2@h//", "which is no transport", "$1://u:hunter2@h//", 'Did you mean "amqp"'),
    broker("name of the server, Valkey", "valkeys://h:6379/0", "which is no transport", "$1://h:6379/0", 'Did you mean "rediss"'),
    broker("password as a parameter", "redis://h:6379/0?password=hunter2", "password as a parameter", "redis://:hunter2@h:6379/0", "before the host"),
    broker("database in words", "redis://h:6379/zero", "database that is not a number", "$e"),
    broker("library that is not installed", "sqs://x:y@", "needs botocore for sqs://, which is not installed", "redis://h:6379/0", 'pip install "kombu[sqs]"'),
    broker("library of another transport", "mongodb://h/db", "needs pymongo for mongodb://, which is not installed", "redis://h:6379/0", 'pip install "kombu[mongodb]"'),
    broker("library of a scheme with a plus", "mongodb+srv://u:p@c.example/celery", "needs pymongo for mongodb://", "redis://h:6379/0", 'pip install "kombu[mongodb]"'),
    broker("library that kombu does without until it is used", "confluentkafka://h:9092", "needs a client library for confluentkafka://", "redis://h:6379/0", 'pip install "kombu[confluentkafka]"'),
    broker("several hosts of AMQP", "amqp://u:p@a:5672,b:5672//", "several hosts in one URL", "$e"),
    broker("empty", "", "is empty", "$e"),
    case("empty where it stands", "", "[celery] broker_url", "is empty", "$e", cfg=of(CELERY, "{}").replace("redis://broker:6379/0", "<>"), files=FILES),
]  # fmt: skip

RESULT_BACKENDS = [
    results("name of a database", "postgres://u:hunter2@h/db", "which is no result backend", "db+sqlite:////tmp/r.db", 'Did you mean "db+postgresql"'),
    results("database misspelt", "db+postgres://u:hunter2@h/db", "no database that SQLAlchemy knows", "db+sqlite:////tmp/r.db", 'Did you mean "db+postgresql"'),
    results("scheme misspelt", "reddis://h:6379/0", "which is no result backend", "redis://h:6379/0", 'Did you mean "redis"'),
    results("variable that is not set", "db+postgresql://u:${PG_PASSWORD}@h/db", "has a placeholder in it", "db+sqlite:////tmp/r.db", "Write what belongs there"),
    results("scheme forgotten", "airflow:hunter2@db:5432/airflow", "is not a URL", "$e"),
    results("scheme of Redis forgotten", "redis:hunter2@h", "is not a URL", "$e"),
    results("scheme behind the password", "u:hunter2@db+postgresql://h/db", "is not a URL", "$e"),
    results("word alone", "hunter2", "is neither a URL nor a result backend that can be imported", "$e"),
    results("dialect misspelt", "db+postgresqll://u:p@h/db", "no database that SQLAlchemy knows", "db+sqlite:////tmp/r.db", 'Did you mean "db+postgresql"'),
    results("driver that is not installed", "db+mssql://u:p@h/db", "needs pyodbc, which is not installed", "db+sqlite:////tmp/r.db", 'pip install "sqlalchemy[mssql]"'),
    celery("engine option misspelt", '{"celery": {"result_backend_sqlalchemy_engine_options": "{<>: 1800}"}}', r'\"pool_recicle\"', "celery.result_backend_sqlalchemy_engine_options", "'pool_recicle', which is no option of create_engine", r'\"$1\"'),
    case("sentinel for results without a master", "", "[dispatch] backends.c.config.celery.result_backend", "without a master_name", ', "celery_result_backend_transport_options": {"master_name": "m"}', "Set master_name in", cfg=of(CELERY, '{"celery": {"result_backend": "sentinel://h:26379"}<>}'), files=FILES),
    results("line break at the end", "db+sqlite:////tmp/r.db\\n", "a blank or a line break", "db+sqlite:////tmp/r.db", "Remove it"),
    results("at sign in the password", "db+postgresql+psycopg2://u:hunter2@x@h/db", "ends them there", "db+postgresql+psycopg2://u:hunter2%%40x@h/db", **ESCAPED),
    results("port in words", "db+postgresql+psycopg2://u:p@h:port/db", "port that is not a number", "db+sqlite:////tmp/r.db", "Write the port as a number"),
    results("no URL of a database", "db+sqlite", "is not a URL of SQLAlchemy's", "db+sqlite:////tmp/r.db", "Name a database"),
    *(
        results(f"library of {scheme}", f"{scheme}://{rest}", f"needs {library}, which is not installed", "db+sqlite:////tmp/r.db", f'Run: pip install "celery[{extra}]"')
        for scheme, rest, library, extra in (
            ("arangodb", "u:p@h:8529/db/c", "pyArango", "arangodb"),
            ("azureblockblob", "DefaultEndpointsProtocol=https", "azure", "azureblockblob"),
            ("cache+memcached", "h:11211/", "pylibmc", "memcache"),
            ("cassandra", "", "cassandra-driver", "cassandra"),
            ("consul", "h:8500/", "python-consul", "consul"),
            ("couchdb", "u:p@h:5984/c", "pycouchdb", "couchdb"),
            ("dynamodb", "id:key@region/table", "boto3", "dynamodb"),
            ("elasticsearch", "h:9200/i/d", "elasticsearch", "elasticsearch"),
            ("gs", "bucket/path", "google-cloud-firestore", "gcs"),
            ("mongodb", "h/", "pymongo", "mongodb"),
            ("s3", "bucket", "boto3", "s3"),
        )
    ),
    results("no backend of this Celery any more", "riak://h", "has the scheme 'riak', which is no result backend", "db+sqlite:////tmp/r.db", "Name a database"),
    results("no results at all", "disabled://", "gives no results: nobody would learn", "db+sqlite:////tmp/r.db", "Name a database"),
    results("TLS without a mode", "rediss://h:6379/0", "ssl_cert_reqs", "rediss://h:6379/0?ssl_cert_reqs=CERT_REQUIRED", "Correct it"),
]  # fmt: skip

TRANSPORTS = [
    transport("time-out in words", '"visibility_timeout": "<>"', "1h", "visibility_timeout", "is not a number", "$e"),
    transport("flag where seconds belong", '"socket_timeout": <>', "true", "socket_timeout", "is not a number", "$e"),
    transport("time-out of none", '"socket_timeout": <>', "0", "socket_timeout", "is not a number above 0", "$e"),
    transport("time-out below zero", '"visibility_timeout": <>', "-1", "visibility_timeout", "is not a number above 0", "$e"),
    transport("time-out that is no number", '"socket_timeout": "<>"', "nan", "socket_timeout", "is not a number above 0", "$e"),
    transport("interval below zero", '"polling_interval": <>', "-1", "polling_interval", "is not a number of 0 or more", "$e"),
    transport("priorities as text", '<>', '"priority_steps": "0,3,6,9"', "priority_steps", "is not a list of whole numbers", "", "Leave it out"),
    transport("option misspelt", '"<>": 3600', "visibilty_timeout", "visibilty_timeout", "is unknown to the transport", "$1", severity="warning"),
    celery("option of results misspelt", '{"celery_result_backend_transport_options": {"<>": "x"}}', "global_key_prefix", "celery_result_backend_transport_options.global_key_prefix", "is unknown to result backends", "$1", severity="warning"),
    *(
        celery(name, '{"celery": {"extra_celery_config": "{\\"<>\\": 1}"}}', wrong, "celery.extra_celery_config", f"has '{wrong}', which Celery does not read", "$1", severity="warning")
        for name, wrong in (("option of Celery 3", "CELERYD_PREFETCH_MULTIPLIER"), ("option of Celery misspelt", "task_ack_late"))
    ),
    transport("queues that are no object", '"predefined_queues": "<>"', "default", "predefined_queues", "is not a JSON object", '{}', "Give a JSON object as text"),
    transport("sentinel's arguments", '"sentinel_kwargs": "<>"', "password=x", "sentinel_kwargs", "is not a JSON object", "{}", "Give a JSON object as text"),
    case("sentinel without a master", "", "[dispatch] backends.c.config.celery.broker_url", "without a master_name", ', "celery_broker_transport_options": {"master_name": "m"}', "Set master_name in", cfg=of(CELERY, '{"celery": {"broker_url": "sentinel://h:26379"}<>}'), files=FILES),
]  # fmt: skip

CERTIFICATES = [
    tls("authority that is missing", ', "ssl_cacert": "/no/such.pem"', "celery.ssl_cacert", "cannot be read", ', "ssl_cacert": ""', "Correct the path"),
    tls("authority that is none", ', "ssl_cacert": "{home}/pod.yaml"', "celery.ssl_cacert", "without certificates", ', "ssl_cacert": ""', "PEM"),
    tls("broker without TLS", ', "broker_url": "memory://"', "celery.ssl_active", "cannot use it", ', "broker_url": "rediss://h:6379/0"', "only amqp, redis and sentinel"),
    tls("authority that is a folder", ', "ssl_cacert": "{home}"', "celery.ssl_cacert", "is a folder", ', "ssl_cacert": ""', "Correct the path"),
    case("TLS and nothing else", "", "[dispatch] backends.c.config.celery.ssl_active", "is set without ssl_cert and ssl_key", ', "ssl_mutual_tls": false', "set ssl_mutual_tls to False", cfg=of(CELERY, '{"celery": {"ssl_active": true<>}}'), files=FILES),
    case("no key for mutual TLS", '"ssl_cert": "{home}/pod.yaml"', "[dispatch] backends.c.config.celery.ssl_active", "is set without ssl_key", '"ssl_mutual_tls": false', "set ssl_mutual_tls to False", cfg=of(CELERY, '{"celery": {"ssl_active": true, <>}}'), files=FILES),
]  # fmt: skip

OTHERS = [
    celery("module that is missing", '{"celery": {"celery_config_options": "<>"}}', "my_company.celery.CONFIG", "celery.celery_config_options", "cannot be imported", "airflow.providers.celery.executors.default_celery.DEFAULT_CELERY_CONFIG", "Give the import path of a dict"),
    celery("module in place of a dict", '{"celery": {"celery_config_options": "<>"}}', "airflow.providers.celery.executors", "celery.celery_config_options", "names a module, which is ignored", "airflow.providers.celery.executors.default_celery.DEFAULT_CELERY_CONFIG", "Give the import path of a dict"),
    case("same queue of the same broker", "", "[dispatch] default", "the same queue of the same broker", '"celery": {"broker_url": "redis://other:6379/0"}', "another broker_url", severity="warning", cfg=airflow_cfg(f'{{"c": {CELERY % "{}"}, "d": {CELERY % "{<>}"}, "l": {LOCAL % "{}"}}}', '[{"queue": "l", "to": ["l"]}]', '["c", "d"]', more="[celery]\nbroker_url = redis://h:6379/0\nresult_backend = db+sqlite:////tmp/r.db\n")),
]  # fmt: skip
CASES = [*BROKERS, *RESULT_BACKENDS, *TRANSPORTS, *CERTIFICATES, *OTHERS]

RIGHT = [
    '{"celery_broker_transport_options": {"health_check_interval": 0, "wait_time_seconds": 0, "visibility_timeout": 1}}',
    '{"celery": {"broker_url": "amqp://u:p@a:5672//;amqp://u:p@b:5672//"}}',
    '{"celery": {"broker_url": "sentinel://a:26379;sentinel://b:26379"}, "celery_broker_transport_options": {"master_name": "m"}}',
    '{"celery": {"result_backend_sqlalchemy_engine_options": "{\\"pool_recycle\\": 1800, \\"pool_pre_ping\\": true}"}}',
]
"""Of a Celery backend's config: no finding."""
