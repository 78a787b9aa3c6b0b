import os

from airflow.decorators import dag, task


@task(queue="k8s")
def render(): ...


@task
def mail(): ...


@dag
def weekly(where=os.environ.get("REPORTS_QUEUE")):
    render() >> mail.override(queue=where)()


weekly()
