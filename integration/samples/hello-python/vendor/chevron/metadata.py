version = '0.14.0'
