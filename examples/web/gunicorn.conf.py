"""gunicorn reads this file where it is started. Nothing in it is for the sake of erps_gevent: no hook is needed."""

bind = "127.0.0.1:8000"
workers = 2

# The gevent worker patches the standard library when it has forked. With preload_app the application was imported
# before that, which this client does not mind, but other libraries may; then patch here, which is before the import:
#
# from gevent import monkey
# monkey.patch_all()
