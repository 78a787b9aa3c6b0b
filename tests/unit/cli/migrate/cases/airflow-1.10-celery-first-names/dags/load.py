from airflow import DAG
from airflow.operators.bash_operator import BashOperator

with DAG("load", default_args={"queue": "workers"}) as dag:
    BashOperator(task_id="one", bash_command="true")
    BashOperator(task_id="two", bash_command="true", queue="big")
