from airflow.decorators import dag, task


@task(executor="pods")
def heavy(): ...


@task(executor="ecs", queue="spot")
def cheap(): ...


@dag
def names():
    heavy() >> cheap()


names()
