from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.python import PythonOperator

HEAVY = "k8s"

with DAG("training", default_args={"owner": "research", "queue": HEAVY}):
    fetch = BashOperator(task_id="fetch", bash_command="true", queue="ingest")
    train = PythonOperator(task_id="train", python_callable=print)
    publish = PythonOperator(task_id="publish", python_callable=print, queue=None)
    fetch >> train >> publish
