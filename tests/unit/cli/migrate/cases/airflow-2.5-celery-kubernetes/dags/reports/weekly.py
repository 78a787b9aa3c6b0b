import os

from airflow.decorators import dag, task


@task(queue="k8s")
def render(): ...


@task
def mail(): ...


@dag
def weekly():
    render() >> mail.override(queue=os.environ.get("REPORTS_QUEUE"))()


weekly()
