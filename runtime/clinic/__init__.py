"""A clinic's box: scans arrive by DICOM or upload, are triaged, shown on a page and sent back.

Three processes share one state folder and nothing else:

    node     `arrivals`, `delivery`: receives and sends, holds the ports of DICOM
    worker   `worker`: holds the engine, opens no port
    page     `page`: the web page and its API, imports no engine
"""
