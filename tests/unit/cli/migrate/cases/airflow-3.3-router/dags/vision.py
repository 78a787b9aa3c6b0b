from airflow.sdk import DAG, task

with DAG("vision"):

    @task(queue="gpu-large")
    def train(): ...

    @task(executor="KubernetesExecutor", queue="ingest")
    def forgotten(): ...

    train() >> forgotten()
